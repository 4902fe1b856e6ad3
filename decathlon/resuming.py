"""Which configuration a command means, and whether a run may go on with it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from decathlon.config import RunConfig, load_config
from decathlon.specs import DomainSpec
from mtan_core.errors import UserError


def refuse_other_data(before: Mapping[str, DomainSpec], now: Sequence[DomainSpec]) -> None:
    """Raises UserError when a resumed run would meet other domains, or a domain with another spec."""
    if list(before) != [spec.name for spec in now]:
        found = ", ".join(spec.name for spec in now)
        raise UserError(f"--data: expected the domains that the run began with ({', '.join(before)}), found {found}.")
    for spec in now:
        if spec != before[spec.name]:
            raise UserError(
                f"--data: expected {spec.name} as the run began with it, found other classes or statistics."
            )


def refuse_other_divisions(before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> None:
    """Raises UserError when a resumed run would meet another division into train and val."""
    for name, splits in now.items():
        if splits != before.get(name):
            raise UserError(
                f"--data: expected {name} divided as the run began with it, found other images in train or val."
            )


def resolve(
    preset: str | None,
    file: Path | None,
    changes: Sequence[str],
    short: Mapping[str, str | None],
    run: Path,
    resume: bool,
) -> RunConfig:
    """The configuration that the command line means: preset or file, then `--set`, then the short options.

    With `resume` and neither preset nor file it is the run's own, where there is one.
    """
    listed = {"domains"}
    wanted = [
        f"{key}={_listed(value) if key in listed else value}" for key, value in short.items() if value is not None
    ]
    own = run / "config.toml"
    if resume and preset is None and file is None and own.exists():
        file = own
    return load_config(preset, file, [*changes, *wanted])


def _listed(names: str) -> str:
    listed = [name.strip() for name in names.split(",") if name.strip()]
    if not listed:
        raise UserError(f"--domains: expected names of domains with commas between, found '{names}'.")
    return json.dumps(listed)
