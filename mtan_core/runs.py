"""What every kind of run's folder holds: `config.toml`, `metrics.parquet`, `summary.json`, `checkpoints/`, TensorBoard events."""

import errno
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch

from mtan_core.checkpoint import checkpoints, read_state
from mtan_core.choices import Choice
from mtan_core.config import Config, Frozen, Kind, dump_config, flat, read_toml
from mtan_core.errors import UserError
from mtan_core.files import held, replacing, taken, write_json, write_text

FORMAT = 1
RESUMABLE = "go on with it by --resume, or choose another"  # what to do where a run is there already


@dataclass(frozen=True)
class Folder(ABC, Generic[Config]):
    """Where the parts of a run lie, and how those are written and read that all kinds of run have."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @abstractmethod
    def config(self) -> Config:
        """The resolved configuration. Raises UserError when the folder is no run of this kind."""

    def config_tree(self) -> dict[str, Any]:
        """The tables of the configuration. Raises UserError when the folder is no run."""
        path = self.path / "config.toml"
        if not path.is_file():
            raise UserError(f"Expected a run's folder (with config.toml), found {self.path}.")
        return read_toml(path)

    def refuse_other_kinds(self, own: str, what: str) -> None:
        """Raises UserError for a run of another kind: one without the document `own`, but with another."""
        others = sorted(path.name for path in self.path.glob("*.json"))
        if others and own not in others:
            raise UserError(f"Expected {what} (with {own}), found one with {', '.join(others)}: {self.path}.")

    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, None for one that is not."""
        path = self.path / "summary.json"
        if not path.is_file():
            return None
        try:
            summary = json.loads(path.read_text())
        except (ValueError, RecursionError) as problem:
            raise UserError(f"Expected a run's summary, found a damaged file: {path}: {problem}.") from None
        check_format(summary, path)
        return dict(summary)

    def write_summary(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Write what was found when the run was finished; returns the document."""
        document = {"format": FORMAT, "finished": True, **summary}
        write_json(self.path / "summary.json", document, indent=2)
        return document

    def checkpoint(self, choice: Choice = "last") -> Path:
        """The last checkpoint, or the best by validation. Raises UserError when there is none."""
        found = checkpoints(self.checkpoints)
        if not found:
            raise UserError(f"Expected a checkpoint, found none in {self.checkpoints}: train the run first.")
        best = read_state(found[-1])["best"]
        if choice == "last":
            return found[-1]
        if best is None:
            raise UserError(
                f"--checkpoint best: {self.path} has no validation to choose by (protocol train+val, or imported)."
            )
        return self.checkpoints / f"step-{best['step']}"


def check_format(document: Any, path: Path) -> None:
    """Raises UserError for a JSON document that is no object, or of another format version."""
    version = document.get("format") if isinstance(document, dict) else None
    if version != FORMAT:
        raise UserError(f"{path}: expected run format {FORMAT}, found {version}: use the version that wrote it.")


@contextmanager
def new_run(path: Path, advice: str = "choose another") -> Iterator[Path]:
    """Yield the name of a temporary folder that becomes the run `path` when all of it is written.

    Raises UserError when `path` exists, or another process is about to write it.
    """
    refuse_existing(path, advice)
    if path.exists():  # empty, or with what an interrupted writer left
        with held(path, "a run"):
            pass
        shutil.rmtree(path)
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as problem:
        if problem.errno in (errno.ENOTEMPTY, errno.EEXIST):
            refuse_existing(path, advice)  # somebody was quicker
        raise


def refuse_existing(path: Path, advice: str = RESUMABLE) -> None:
    """Raises UserError when something is there that a new run would overwrite."""
    if taken(path):
        raise UserError(f"--run: expected a new folder, found {path} ({advice}).")


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one. Raises UserError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"`device`: expected a device of this machine, found '{name}', which is not there.")
    return device


def refuse_differences(old: Frozen, new: Frozen) -> None:
    """Raises UserError that names the first key in which a resumed run would differ."""
    before, after = flat(old.model_dump()), flat(new.model_dump())
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            raise UserError(
                f"--resume: expected the run's own `{key}` = {before.get(key)!r}, found {after.get(key)!r}."
            )


def amend(folder: Folder[Config], config: Config) -> None:
    """Let a run that was cloned from another go on with other `changes` from its last checkpoint on.

    Its past stays what it was: raises UserError for a configuration that differs in anything else, or in changes that have
    taken effect already.
    """
    epochs = read_state(folder.checkpoint())["position"]["epochs"]
    own = folder.config()

    def past(run: Config) -> Config:
        changes = dict(run)["changes"]
        return run.model_copy(update={"changes": tuple(change for change in changes if change.after < epochs)})

    refuse_differences(past(own), past(config))
    if config != own:
        write_text(folder.path / "config.toml", dump_config(config))


def resolve(
    kind: Kind[Config],
    preset: str | None,
    file: Path | None,
    changes: Sequence[str],
    short: Mapping[str, str | None],
    run: Path,
    resume: bool,
) -> Config:
    """The configuration that the command line means: preset or file, then `--set`, then the short options.

    With `resume` and neither preset nor file it is the run's own, where there is one.
    """
    listed = {"domains", "tasks"}
    wanted = [
        f"{key}={_listed(key, value) if key in listed else value}" for key, value in short.items() if value is not None
    ]
    own = run / "config.toml"
    if resume and preset is None and file is None and own.exists():
        file = own
    return kind.load(preset, file, [*changes, *wanted])


def _listed(key: str, names: str) -> str:
    listed = [name.strip() for name in names.split(",") if name.strip()]
    if not listed:
        raise UserError(f"--{key}: expected names of {key} with commas between, found '{names}'.")
    return json.dumps(listed)
