"""From parts put together to a finished run: what every kind of training does before, around and after the loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from mtan_core.averaging import WeightAverage
from mtan_core.checkpoint import checkpoints, load_exactly, read_state, read_tensors, recover
from mtan_core.config import Frozen
from mtan_core.errors import UserError
from mtan_core.files import held
from mtan_core.loop import Change, Trainer
from mtan_core.memory import keep_memory
from mtan_core.parallel import ALONE, Group
from mtan_core.runs import Folder, refuse_differences, refuse_existing
from mtan_core.schedule import Schedule
from mtan_core.step import NotFiniteError


class Training(ABC):
    """A run in the making: all parts put together, before or between steps."""

    trainer: Trainer

    @abstractmethod
    def start(self) -> None:
        """Write what the run is made of into its folder."""

    @abstractmethod
    def refuse_other_data(self) -> None:
        """Raises UserError where the data are not those that the run began with."""

    @abstractmethod
    def finish(self) -> dict[str, Any]:
        """Write the summary and return it."""

    def conclude(self) -> None:  # noqa: B027 -- most networks are finished with the last step
        """Do what is left to do with the network after the last step."""

    def measure(self) -> None:  # noqa: B027 -- most runs were measured while they were trained
        """Look once more at the finished network, on all processes, before the summary is written."""

    def load(self, checkpoint: Path) -> None:
        """Take the weights that answer from a checkpoint."""
        load_exactly(self.trainer.training.network, read_tensors(checkpoint, "weights"), str(checkpoint))

    def run(self, last: Path | None) -> None:
        """Train to the end, from the checkpoint `last` on (None: from the beginning), and write the finished checkpoint."""
        state = read_state(last) if last else {}
        if last and state.get("finished"):  # only the summary is lacking
            self.load(last)
            self.trainer.recall(state)
            return
        if last and state["position"]:  # else it holds the weights to start from, which are loaded
            self.trainer.restore(last)
        self.trainer.run()
        if self.trainer.average:
            self.trainer.average.swap()
        self.conclude()
        self.trainer.save_finished()


def loop_options(config: Any, network: nn.Module) -> dict[str, Any]:
    """The arguments of `Trainer` that a configuration of any kind gives."""
    rates, kept = config.optimizer, config.checkpoint
    return {
        "schedule": Schedule(rates.schedule, rates.warmup, rates.step_epochs, rates.step_factor),
        "average": WeightAverage(network, config.ema) if config.ema else None,
        "evaluate_every": config.evaluate_every,
        "keep": kept.keep, "every_steps": kept.every_steps, "every_epochs": kept.every_epochs,
        "changes": [Change(**change.model_dump()) for change in config.changes],
    }  # fmt: skip


AnyConfig = TypeVar("AnyConfig", bound=Frozen)


def train_run(
    folder: Folder[AnyConfig],
    config: AnyConfig,
    prepare: Callable[[Path | None], Training],
    resume: bool = False,
    group: Group = ALONE,
) -> dict[str, Any]:
    """Train a run from the beginning, or go on with it; returns its summary.

    `prepare` puts the parts together, without writing anything, and is told the checkpoint to go on from. Raises UserError
    for bad input before anything is written, and when a loss is not finite; Interrupted (after a checkpoint) when the
    trainer's `stop` says so.

    In a group all processes call it; the leader looks at the folder and writes it, and the others follow, who may have a
    copy of the folder as their own.
    """
    if not group.leads:
        return _follow(folder, prepare, group)
    with ExitStack() as until_the_end:
        try:
            begun = _begin(folder, config, prepare, resume, until_the_end)
        except UserError as mistake:
            group.told(mistake)
            raise
        if isinstance(begun, dict):
            return group.told(begun)
        training, last = begun
        group.told(last.name if last else None)
        _run(training, last)
        return group.told(training.finish())


def _begin(
    folder: Folder[AnyConfig],
    config: AnyConfig,
    prepare: Callable[[Path | None], Training],
    resume: bool,
    until_the_end: ExitStack,
) -> tuple[Training, Path | None] | dict[str, Any]:
    """A training and the checkpoint that it goes on from, in a folder that is held; or the summary of a finished run."""
    if resume and (folder.path / "config.toml").exists():
        until_the_end.enter_context(held(folder.path, "a run"))
        return _resumed(folder, config, prepare)
    refuse_existing(folder.path)
    training = prepare(None)
    folder.path.mkdir(parents=True, exist_ok=True)
    until_the_end.enter_context(held(folder.path, "a run"))
    refuse_existing(folder.path)  # somebody may have been quicker
    training.start()
    return training, None


def _resumed(
    folder: Folder[AnyConfig], config: AnyConfig, prepare: Callable[[Path | None], Training]
) -> tuple[Training, Path | None] | dict[str, Any]:
    refuse_differences(folder.config(), config)
    recover(folder.checkpoints)
    if (summary := folder.summary()) is not None and _answers(folder.checkpoint()):
        return summary
    found = checkpoints(folder.checkpoints)
    last = found[-1] if found else None
    training = prepare(last)
    if last:
        training.refuse_other_data()
    else:
        training.start()
    return training, last


def _answers(checkpoint: Path) -> bool:
    """Whether a finished run ends in this checkpoint; where its last one was taken away, it is to be finished again.

    Raises UserError where the weights are damaged, which nobody should learn only when they are needed.
    """
    state = read_state(checkpoint)
    read_tensors(checkpoint, "weights")
    return bool(state.get("finished") or not state["position"])  # without a position: imported, never trained here


def _follow(folder: Folder[AnyConfig], prepare: Callable[[Path | None], Training], group: Group) -> dict[str, Any]:
    """Train with a leader, who says what from: a checkpoint or nothing; or why not, or the summary of a finished run."""
    said: UserError | dict[str, Any] | str | None = group.told(None)
    if isinstance(said, UserError):
        raise said
    if isinstance(said, dict):
        return said
    last = folder.checkpoints / said if said else None
    _run(prepare(last), last)
    return group.told({})


def _run(training: Training, last: Path | None) -> None:
    keep_memory()
    try:
        training.run(last)
        training.measure()
    except NotFiniteError as problem:
        raise UserError(
            f"{problem.args[0]}: expected a finite loss, found {problem.args[1]} at step {training.trainer.position.steps}; "
            f"lower optimizer.lr or set optimizer.clip, and begin a new run."
        ) from None
