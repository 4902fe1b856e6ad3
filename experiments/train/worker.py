"""One worker's part of a data-parallel run: the training that `mtan decathlon train` and `mtan dense train` do."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.train.copies import copies_in
from mtan_core.errors import Interrupted, UserError
from mtan_core.loop import Report, report_nothing
from mtan_core.parallel import Group, ProcessGroup

TaskKind = Literal["decathlon", "dense"]


@dataclass(frozen=True)
class Work:
    """What all workers are told.

    `mark` lies in the run's folder, for those who reach it. With a `storage` nobody needs to: each worker has a copy of its
    own, in `scratch` (None: where its machine has temporary files).
    """

    task: TaskKind
    config: dict[str, Any]
    data: str
    run: str
    mark: str
    resume: bool
    synchronised: bool
    storage: str | None = None
    scratch: str | None = None


def work(settings: dict[str, Any]) -> None:
    """Train with the other workers, from the last checkpoint if one of them was lost before."""
    import ray
    import torch

    from experiments.train.desk import Standing

    told, desk = settings["work"], settings["desk"]
    group = ProcessGroup(told.synchronised)
    before: Standing = group.told(ray.get(desk.begin.remote()) if group.leads else None)
    if before.mistake or before.stopped:
        return
    if torch.cuda.is_available():
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    try:
        _train(told, group, desk, again=before.beginnings > 0)
    except UserError as mistake:
        ray.get(desk.write.remote(mistake=str(mistake)))
        raise
    except Interrupted as stopped:
        if group.leads:
            ray.get(desk.write.remote(stopped=str(stopped.args[0])))


def _train(told: Work, group: Group, desk: Any, again: bool) -> None:
    from experiments.train.desk import Telling, never, silent

    telling = Telling(desk) if group.leads else None
    options: dict[str, Any] = {
        "resume": told.resume or again, "stop": telling.stop if telling else never,
        "group": group, "show": telling.show if telling else silent,
    }  # fmt: skip
    with _folder(told, group) as run, _copied(told, run, group) as options["report"]:
        if told.task == "decathlon":
            from decathlon.config import parse_config
            from decathlon.training import train as train_decathlon

            train_decathlon(parse_config(told.config, "here"), told.data, run, **options)
        else:
            from dense_tasks.config import KIND
            from dense_tasks.training import train as train_dense

            train_dense(KIND.parse(told.config, "here"), Path(told.data), run, **options)


@contextmanager
def _folder(told: Work, group: Group) -> Iterator[Path]:
    """The run's folder as this worker knows it. Raises UserError where it is not the one that all know."""
    if told.storage is None:
        if not (Path(told.run) / told.mark).exists():
            raise UserError(
                f"--run: expected a folder that all machines reach, found none of that name on one: {told.run} "
                f"(or name a --storage)."
            )
        yield Path(told.run)
        return
    with tempfile.TemporaryDirectory(prefix="mtan-run-", dir=told.scratch) as place:
        run = Path(place) / "run"
        copies_in(told.storage).pull(run)
        group.meet()  # a new copy is written only when nobody reads the old one any longer
        yield run


@contextmanager
def _copied(told: Work, run: Path, group: Group) -> Iterator[Report]:
    """What is to be told of each epoch; with a storage the leader copies the run there, and once more at its end or stop."""
    if told.storage is None or not group.leads:
        yield report_nothing
        return
    copies = copies_in(told.storage)

    def report(rows: Sequence[Any], checkpoint: Path | None) -> None:
        if checkpoint:
            copies.push(run)

    try:
        yield report
    except Interrupted:
        copies.push(run)
        raise
    copies.push(run)
