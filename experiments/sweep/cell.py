"""One training of a table, in a worker of Ray's: the same that `mtan decathlon train` and `mtan dense train` run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.cluster.mirror import Mirror
from mtan_core.config import Frozen
from mtan_core.errors import UserError
from mtan_core.files import held

RESULTS = "results.json"  # a run's predictions for the test images, in its folder
PATIENCE = 60  # seconds for a killed worker to let go of its run


@dataclass(frozen=True)
class Job:
    """What a worker is told. Runs lie under the same path on every machine, as configurations name those they build upon."""

    task: Literal["decathlon", "dense"]
    config: Frozen
    data: str
    run: Path
    upon: tuple[Path, ...] = ()
    submit: bool = False
    storage: str | None = None


def train_cell(job: Job) -> str | None:
    """Train a run to its end, from wherever it stands; returns what the user did wrong, None when all went well."""
    try:
        _bring(job)
        _wait_until_free(job.run)
        _train(job)
        if job.submit and not (job.run / RESULTS).is_file():
            _submit(job)
    except UserError as problem:
        return str(problem)
    _push(job)
    return None


def done(run: Path, submit: bool) -> bool:
    """Whether a run is finished, and with `submit` its predictions written."""
    return (run / "summary.json").is_file() and (not submit or (run / RESULTS).is_file())


def _bring(job: Job) -> None:
    """What lies in the storage and not on this machine: the runs to build upon, and what another machine did of this one."""
    if job.storage is None:
        return
    for run in job.upon:
        if not done(run, submit=False):
            Mirror(job.storage, run.name).pull(run)
    if not job.run.is_dir():
        Mirror(job.storage, job.run.name).pull(job.run)


def _push(job: Job) -> None:
    if job.storage is not None:
        Mirror(job.storage, job.run.name).push(job.run)


def _train(job: Job) -> None:
    def report(rows: Sequence[Any], checkpoint: Path | None) -> None:
        if checkpoint:
            _push(job)

    if job.task == "decathlon":
        from decathlon.training import train as train_decathlon

        train_decathlon(job.config, job.data, job.run, resume=True, report=report)  # type: ignore[arg-type]
    else:
        from dense_tasks.training import train as train_dense

        train_dense(job.config, Path(job.data), job.run, resume=True, report=report)  # type: ignore[arg-type]


def _submit(job: Job) -> None:
    from decathlon.data.store import open_store
    from decathlon.own_store import with_added
    from decathlon.reports import submit_run
    from decathlon.runs import load_run

    submit_run(load_run(job.run), with_added(open_store(job.data), job.run), job.run / RESULTS)


def _wait_until_free(run: Path) -> None:
    """A worker whose driver was killed may still be at it for some seconds. Raises UserError when it does not go."""
    for left in reversed(range(PATIENCE)):
        if not run.is_dir():
            return
        try:
            with held(run, "a run"):
                return
        except UserError:
            if not left:
                raise
            time.sleep(1)
