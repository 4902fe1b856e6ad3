"""One worker's part of a data-parallel run: the training that `mtan decathlon train` and `mtan dense train` do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mtan_core.errors import UserError
from mtan_core.loop import Interrupted
from mtan_core.parallel import Group, ProcessGroup

TaskKind = Literal["decathlon", "dense"]


@dataclass(frozen=True)
class Work:
    """What all workers are told. `mark` lies in the run's folder, for those who reach it."""

    task: TaskKind
    config: dict[str, Any]
    data: str
    run: str
    mark: str
    resume: bool
    synchronised: bool


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

    if not (Path(told.run) / told.mark).exists():
        raise UserError(
            f"--run: expected a folder that all machines reach, found none of that name on one: {told.run}."
        )
    telling = Telling(desk) if group.leads else None
    options: dict[str, Any] = {
        "resume": told.resume or again, "stop": telling.stop if telling else never,
        "group": group, "show": telling.show if telling else silent,
    }  # fmt: skip
    if told.task == "decathlon":
        from decathlon.config import parse_config
        from decathlon.training import train as train_decathlon

        train_decathlon(parse_config(told.config, "here"), told.data, Path(told.run), **options)
    else:
        from dense_tasks.config import KIND
        from dense_tasks.training import train as train_dense

        train_dense(KIND.parse(told.config, "here"), Path(told.data), Path(told.run), **options)
