"""Which configuration a command means, and whether a run may go on with it."""

from collections.abc import Mapping, Sequence

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
