"""A run and its copy in a storage, which machines without a common disk reach."""

import shutil
import tempfile
from pathlib import Path

from experiments.cluster.mirror import Mirror
from experiments.cluster.storage import open_storage, refuse_unwritable, remove_leftovers
from mtan_core.checkpoint import checkpoints, step_of
from mtan_core.errors import UserError
from mtan_core.files import held
from mtan_core.runs import RESUMABLE


def copies_in(storage: str) -> Mirror:
    """The copies of the one run that a storage is for. Raises UserError for a URI that pyarrow does not know."""
    return Mirror(storage, "run")


def refuse_copy(storage: str) -> None:
    """Raises UserError for a storage that cannot be written, or where a run is already."""
    refuse_unwritable(open_storage(storage), storage)
    if copies_in(storage).exists():
        raise UserError(f"--storage: expected a place without a run, found one: {storage} ({RESUMABLE}).")


def settle(storage: str, run: Path) -> None:
    """Before a run goes on: let its folder and the copy be the same, as far as the one that is further.

    Raises UserError where the copy is that of another run.
    """
    place = open_storage(storage)
    refuse_unwritable(place, storage)
    remove_leftovers(place)
    copies, here = copies_in(storage), (run / "config.toml").exists()
    run.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=run.parent) as folder:
        copy = Path(folder) / "run"
        if not copies.pull(copy):
            if here:
                copies.push(run)
        elif not here:
            shutil.rmtree(run, ignore_errors=True)
            copy.rename(run)
        else:
            _settle(copies, copy, run, storage)


def _settle(copies: Mirror, copy: Path, run: Path, storage: str) -> None:
    if (copy / "config.toml").read_bytes() != (run / "config.toml").read_bytes():
        raise UserError(
            f"--storage: expected a copy of {run}, found that of a run with another configuration: {storage}."
        )
    if _reached(copy) < _reached(run):
        copies.push(run)
    elif _reached(copy) > _reached(run):
        with held(run, "a run"):
            shutil.rmtree(run)
            copy.rename(run)


def _reached(run: Path) -> tuple[int, bool]:
    """How far a run is: the step of its last checkpoint, and whether it is finished."""
    return max(map(step_of, checkpoints(run / "checkpoints")), default=-1), (run / "summary.json").exists()
