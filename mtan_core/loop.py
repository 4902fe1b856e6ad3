"""The training loop: phases of epochs of steps, with checkpoints from which it goes on bit for bit."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtan_core.averaging import WeightAverage
from mtan_core.checkpoint import load_exactly, prune, read_state, read_tensors, save_checkpoint
from mtan_core.errors import Interrupted, UserError
from mtan_core.metrics import Tally, mean_accuracy
from mtan_core.parallel import Group
from mtan_core.progress import Advance, progress
from mtan_core.sampling import Sampler
from mtan_core.schedule import Schedule
from mtan_core.step import NotFiniteError, Outcome, Step

Row = dict[str, Any]
Report = Callable[[Sequence[Row], Path | None], None]
Show = Callable[..., AbstractContextManager[Advance]]  # called as `mtan_core.progress.progress` is


def report_nothing(rows: Sequence[Row], checkpoint: Path | None) -> None:
    """Nobody wants to hear of the epochs."""


@dataclass(frozen=True)
class Columns:
    """What the metrics' columns are called: a task, what is counted of it, and its key metric."""

    task: str = "domain"
    seen: str = "images"
    key: str = "accuracy"


@dataclass(frozen=True)
class Phase:
    """A stretch of training: which streams of images are drawn from, for how long, how fast it learns, and what is frozen."""

    streams: tuple[str, ...]
    epochs: int
    lr: float
    freeze: tuple[str, ...] = ()
    shared_only: bool = False  # `freeze` holds for what tasks share; what single tasks own of pool and ladder learns
    own_lr: bool = False  # `lr` is this phase's alone, and not the run's, which may change


@dataclass(frozen=True)
class Change:
    """What is otherwise once so many epochs are finished; None is as before. The optimiser and the schedule go on."""

    after: int
    lr: float | None = None
    weight_decay: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Position:
    """Where a run stands. With the seed it determines every draw to come."""

    phase: int = 0
    epoch: int = 0  # finished in this phase
    epochs: int = 0  # finished in all
    step: int = 0  # finished in this epoch
    steps: int = 0  # finished in all
    drawn: dict[str, int] = field(default_factory=dict)  # batches taken of each stream


@dataclass
class Trainer:
    """Everything a run needs beside the data, which comes through `batch(stream, number of the batch in it)`.

    In classification every task is a stream of images; dense tasks all look at the images of one.
    `evaluate` gives validation tallies (None: there is no validation). `observe` is told the rows of metrics and the
    seconds after each epoch, `report` the same rows and the epoch's checkpoint once it is written (None: there is none).
    `stop` is asked after each step whether to write a checkpoint and leave. `make_optimizer` is told the learning rate and
    the weight decay (None: the run's).
    """

    training: Step
    sampler: Sampler
    phases: Sequence[Phase]
    schedule: Schedule
    make_optimizer: Callable[[float, float | None], torch.optim.Optimizer]
    batch: Callable[[str, int], Any]
    folder: Path
    evaluate: Callable[[], Mapping[str, Tally]] | None = None
    evaluate_every: int = 1
    observe: Callable[[Sequence[Row]], None] = lambda rows: None
    report: Report = report_nothing
    show: Show = progress
    stop: Callable[[], bool] = lambda: False
    average: WeightAverage | None = None
    keep: int = 2
    every_steps: int = 0
    every_epochs: int = 1
    columns: Columns = Columns()
    changes: Sequence[Change] = ()
    position: Position = field(default_factory=Position)
    tallies: dict[str, Tally] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    best: dict[str, Any] | None = None  # {"step", "accuracy"} of the best mean validation accuracy
    seconds: float = 0.0
    images: int = 0

    @property
    def group(self) -> Group:
        """Who trains together; the leader alone writes, tells and shows anything."""
        return self.training.group

    def run(self) -> None:
        """Train to the end of the last phase. Raises Interrupted after a checkpoint when `stop` says so."""
        total = sum(self.sampler.epoch_length(phase.streams) * phase.epochs for phase in self.phases)
        self._began = time.perf_counter() - self.seconds
        averaged = self.average.values.values() if self.average else ()
        self.group.follow([*self.training.network.state_dict().values(), *averaged])
        with self.show("training", total=total, start=self.position.steps) as self._advance:
            while self.position.phase < len(self.phases):
                self._phase(self.phases[self.position.phase])
                self.position = Position(
                    phase=self.position.phase + 1,
                    epochs=self.position.epochs,
                    steps=self.position.steps,
                    drawn=self.position.drawn,
                )
                if self.position.phase < len(self.phases):
                    self.training.optimizer = self._fresh_optimizer()
        self.seconds = time.perf_counter() - self._began

    def save_finished(self) -> Path:
        """Write the last checkpoint of a finished run: the weights that answer, and nothing to train on with."""
        tensors = {"weights": self.training.network.state_dict()}
        return self._write(tensors, {**self._state(), "finished": True})

    def _state(self) -> dict[str, Any]:
        return {
            "position": asdict(self.position), "tallies": {task: asdict(t) for task, t in self.tallies.items()},
            "rows": self.rows, "best": self.best, "images": self.images,
            "seconds": time.perf_counter() - self._began, "weighting": self.training.weighting.memory(),
            "average_steps": self.average.steps if self.average else {},
        }  # fmt: skip

    def _phase(self, phase: Phase) -> None:
        while self.position.epoch < phase.epochs:
            self.training.begin_epoch(self.position.epochs / sum(each.epochs for each in self.phases))
            self.training.network.train()
            self.training.network.freeze(phase.freeze, phase.shared_only)
            self._change()
            self._epoch(phase)

    def _now(self) -> Change:
        """All changes that hold at this epoch, in one."""
        lr, decay = None, None
        weights: dict[str, float] = {}
        for change in self.changes:
            if change.after <= self.position.epochs:
                lr = change.lr if change.lr is not None else lr
                decay = change.weight_decay if change.weight_decay is not None else decay
                weights |= change.weights
        return Change(self.position.epochs, lr, decay, weights)

    def _change(self) -> None:
        """Make what changes with this epoch take effect; on what a checkpoint restored it has no further one."""
        now = self._now()
        if now.weights:
            self.training.weighting.reweigh(now.weights)
        if any(change.after == now.after and change.weight_decay is not None for change in self.changes):
            state = self.training.optimizer.state
            self.training.optimizer = self._fresh_optimizer()
            self.training.optimizer.state.update(state)

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        return self.make_optimizer(self._rate(self.phases[self.position.phase]), self._now().weight_decay)

    def _rate(self, phase: Phase) -> float:
        """The learning rate before the schedule's factor."""
        changed = self._now().lr
        return phase.lr if phase.own_lr or changed is None else changed

    def _epoch(self, phase: Phase) -> None:
        draws = self.sampler.epoch(self.position.epochs, phase.streams)
        for streams in draws[self.position.step :]:
            self._set_rate(phase, len(draws), self.position.step)
            batches = self._batches(streams)
            self._record(self.training(batches))
            self.images += sum(self.sampler.batch(stream) for stream in streams)
            self.position.step += 1
            self.position.steps += 1
            self._after_step(len(draws))
        self._set_rate(phase, len(draws), len(draws) - 1)  # the last step's, also where a resumption came after it
        self._end_epoch(phase)

    def _batches(self, streams: Sequence[str]) -> dict[str, Any]:
        batches = {stream: self.batch(stream, self.position.drawn.get(stream, 0)) for stream in streams}
        for stream in streams:
            self.position.drawn[stream] = self.position.drawn.get(stream, 0) + 1
        return batches

    def _set_rate(self, phase: Phase, steps: int, step: int) -> None:
        factor = self.schedule.factor(self.position.epoch * steps + step, steps, phase.epochs)
        for group in self.training.optimizer.param_groups:
            group["lr"] = self._rate(phase) * factor

    def _record(self, outcomes: Mapping[str, Outcome]) -> None:
        if self.average:
            self.average.update(outcomes)
        seen_of_all = outcomes.values()
        correct, seen, losses = (
            _fetched([getattr(outcome, name) for outcome in seen_of_all]) for name in ("correct", "seen", "loss")
        )
        for task, right, count, loss in zip(outcomes, correct, seen, losses, strict=True):
            self.tallies.setdefault(task, Tally()).add(right, count, loss)

    def _after_step(self, steps_in_epoch: int) -> None:
        self._advance(1, note=self._note())
        finished = self.position.step == steps_in_epoch
        if self.group.told(self.stop()):
            raise Interrupted(self.save())
        if self.every_steps and self.position.steps % self.every_steps == 0 and not finished:
            self.save()

    def _note(self) -> str:
        losses = " ".join(f"{task[:5]} {tally.mean_step_loss:.2f}" for task, tally in self.tallies.items())
        rate = self.images / (time.perf_counter() - self._began)
        return f"{rate:.0f} images/s; loss {losses}"

    def _end_epoch(self, phase: Phase) -> None:
        weighting = self.training.weighting
        weights = weighting.epoch_weights()
        weighting.end_epoch({task: tally.mean_step_loss for task, tally in self.tallies.items()})
        self.position.epoch += 1
        self.position.epochs += 1
        self.position.step = 0
        last = self.position.epoch == phase.epochs
        validation = self._validate() if last or self.position.epochs % self.evaluate_every == 0 else {}
        rows = self._rows(validation, weights)
        self.rows += rows
        self.tallies = {}
        self._keep_best(validation)
        if self.group.leads:
            self.observe(rows)
        due = last or self.position.epochs % self.every_epochs == 0 or self._is_best()
        self.report(rows, self.save() if due else None)

    def _validate(self) -> Mapping[str, Tally]:
        if self.evaluate is None:
            return {}
        if self.average:
            self.average.swap()
        try:
            tallies = self.evaluate()
        finally:
            if self.average:
                self.average.swap()
        for task, tally in tallies.items():
            if not math.isfinite(tally.loss):
                raise NotFiniteError(task, tally.mean_loss)
        return tallies

    def _rows(self, validation: Mapping[str, Tally], weights: Mapping[str, float | None]) -> list[Row]:
        """One row for each task that was drawn or validated; what it lacks is None."""
        rate, name = self.training.optimizer.param_groups[0]["lr"], self.columns
        rows = []
        for task in (task for task in self.training.weighting.tasks if task in self.tallies or task in validation):
            tally, seen = self.tallies.get(task), validation.get(task)
            rows.append({
                "epoch": self.position.epochs, "step": self.position.steps, name.task: task, "lr": rate,
                "weight": weights.get(task), name.seen: tally.seen if tally else 0,
                "loss": tally.mean_step_loss if tally else None, name.key: tally.accuracy if tally else None,
                "val_loss": seen.mean_loss if seen else None, f"val_{name.key}": seen.accuracy if seen else None,
                **{f"val_{key}": value for key, value in (seen.metrics if seen else {}).items()},
            })  # fmt: skip
        return rows

    def _keep_best(self, validation: Mapping[str, Tally]) -> None:
        if validation:
            accuracy = mean_accuracy(validation)
            if self.best is None or accuracy > self.best["accuracy"]:
                self.best = {"step": self.position.steps, "accuracy": accuracy}

    def _is_best(self) -> bool:
        return self.best is not None and self.best["step"] == self.position.steps

    def save(self) -> Path:
        """Write a checkpoint and delete those that are no longer needed."""
        network = self.training.network.state_dict()
        tensors = {
            "weights": self.average.values if self.average else network,
            "training": {
                **_optimizer_tensors(self.training),
                **{
                    f"{part}.{name}": value
                    for part, module in self.training.companions.items()
                    for name, value in module.state_dict().items()
                },
            },
        }
        if self.average:
            tensors["learning"] = network
        return self._write(tensors, self._state())

    def _write(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
        """By the leader, for whom the others wait."""
        path = self.folder
        if self.group.leads:
            path = save_checkpoint(self.folder, self.position.steps, tensors, state)
            prune(self.folder, self.keep, self.folder / f"step-{self.best['step']}" if self.best else None)
        return self.group.told(path)

    def recall(self, state: Mapping[str, Any]) -> None:
        """Take back from a checkpoint's state how far the run came."""
        self.position = Position(**state["position"])
        self.tallies = {task: Tally(**fields) for task, fields in state["tallies"].items()}
        self.rows, self.best = state["rows"], state["best"]
        self.images, self.seconds = state["images"], state["seconds"]

    def restore(self, checkpoint: Path) -> None:
        """Take back all that `save` wrote. Raises UserError for damaged files and for those of another network."""
        state = read_state(checkpoint)
        self.recall(state)
        weights = read_tensors(checkpoint, "weights")
        if self.average:
            self.average.load(weights, state["average_steps"], str(checkpoint))
            weights = read_tensors(checkpoint, "learning")
        load_exactly(self.training.network, weights, str(checkpoint))
        self.training.optimizer = self._fresh_optimizer()
        tensors = read_tensors(checkpoint, "training")
        _restore_optimizer(self.training, tensors, str(checkpoint))
        for part, module in self.training.companions.items():
            prefix = f"{part}."  # names with "/" are the optimiser's state of the part's parameters
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix) and "/" not in k}
            load_exactly(module, own, str(checkpoint))
        self.training.weighting.recall(state["weighting"])


def _fetched(values: Sequence[Any]) -> list[Any]:
    """Numbers as they are, tensors from their device in one transfer."""
    return torch.stack(list(values)).tolist() if values and isinstance(values[0], Tensor) else list(values)


def _names(training: Step) -> dict[int, str]:
    parts = {"": training.network, **training.companions}
    return {id(p): name for prefix, module in parts.items() for name, p in module.named_parameters(prefix)}


def _optimizer_tensors(training: Step) -> dict[str, Tensor]:
    """The optimiser's state by parameter name: `<parameter>/<key>`."""
    names = _names(training)
    return {
        f"{names[id(parameter)]}/{key}": torch.as_tensor(value)
        for parameter, values in training.optimizer.state.items()
        for key, value in values.items()
        if value is not None
    }


def _restore_optimizer(training: Step, tensors: Mapping[str, Tensor], where: str) -> None:
    names = _names(training)
    for group in training.optimizer.param_groups:
        for parameter in group["params"]:
            prefix = names[id(parameter)] + "/"
            held = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            if any(value.shape not in (parameter.shape, torch.Size([])) for value in held.values()):
                raise UserError(f"{where}: expected this network's optimiser, found another shape for {prefix[:-1]}.")
            if held:
                # copies in the parameter's own memory format; a fused AdamW counts its steps where the parameters are
                counts = parameter.device if group.get("fused") else "cpu"
                training.optimizer.state[parameter] = {
                    key: torch.empty_like(parameter).copy_(value)
                    if value.shape == parameter.shape and key != "step"
                    else value.to(counts, copy=True)
                    for key, value in held.items()
                }
