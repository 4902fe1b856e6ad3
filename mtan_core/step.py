"""One optimiser step from the batches of one or several tasks."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.distillation import Distillation
from mtan_core.network import AttentionNetwork, TaskNetwork
from mtan_core.norm import SHARED, running_statistics
from mtan_core.parallel import ALONE, Group, shared_losses
from mtan_core.weighting import GradientWeighting, Parameters, Row, Weighting, add_gradients, rows_of
from mtan_core.workers import Workers, deal

Precision = Literal["fp32", "bf16"]


class Batch(NamedTuple):
    """One task's part of a step.

    With mixup, `labels` and `other_labels` count with `share` and 1 - `share` (Zhang et al. 2018).
    """

    images: Tensor  # (batch, 3, h, w), normalised
    labels: Tensor  # (batch,), int64
    other_labels: Tensor | None = None
    share: float = 1.0


class Outcome(NamedTuple):
    """What a step saw of one task, on all processes (tensors on the device, so that nothing waits)."""

    loss: Tensor  # mean raw loss
    correct: Tensor  # of those seen, by the task's key metric
    seen: int | Tensor  # images, or pixels with a label
    total: Tensor  # the loss with what teachers add to it


class NotFiniteError(RuntimeError):
    """A task's loss became infinite or NaN; `args` are the task and the value."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a network runs: bf16 is autocast with parameters, statistics and losses in fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@dataclass
class Step(ABC):
    """Forward, losses, backward and one optimiser step; what kind of batches and losses is said by `learn`.

    Gradients are None, not zero, for what a step does not reach, so that a task's own parameters never move without its
    data, whatever momentum and weight decay say.
    """

    network: TaskNetwork
    weighting: Weighting
    optimizer: torch.optim.Optimizer
    precision: Precision = "fp32"
    clip: float = field(default=0.0, kw_only=True)  # largest gradient norm; 0: no clipping
    group: Group = field(default=ALONE, kw_only=True)  # who trains together, each with its part of every batch

    @property
    def companions(self) -> dict[str, nn.Module]:
        """What learns beside the network, and is kept in checkpoints with it."""
        return {"weighting": self.weighting}

    def begin_epoch(self, done: float) -> None:  # noqa: B027 -- most steps do not care
        """Told before an epoch which part of the whole training is done, from 0 to 1."""

    def __call__(self, batches: Mapping[str, Any]) -> dict[str, Outcome]:
        """Learn from batches by the stream that they come from; what was seen of each task.

        Raises NotFiniteError, before any parameter moves, when a loss is not finite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.weighting.begin_step()
        outcomes = self.learn(batches)
        _check_finite(outcomes)
        self._exchange()
        if self.clip:
            nn.utils.clip_grad_norm_([p for p in self._clipped() if p.grad is not None], self.clip)
        self.optimizer.step()
        self.weighting.end_step(outcomes)
        return outcomes

    @abstractmethod
    def learn(self, batches: Mapping[str, Any]) -> dict[str, Outcome]:
        """Add the gradients of these batches to the parameters'."""

    def _exchange(self) -> None:
        """Sum gradients over processes; a weighting's own are everywhere the same, as are those that it has gathered."""
        if self.group.size == 1:
            return
        if not isinstance(self.weighting, GradientWeighting):
            weighing = {id(parameter) for parameter in self.weighting.parameters()}
            self.group.add_up([parameter for parameter in self._parameters() if id(parameter) not in weighing])
        if not self.group.synchronised:
            self.group.average(running_statistics(self.network))

    def _agreed(
        self, losses: dict[str, Tensor], outcomes: dict[str, Outcome]
    ) -> tuple[dict[str, Tensor], dict[str, Outcome]]:
        """Losses and outcomes of the whole batch, of which this process has seen a part; only its part is differentiated."""
        if self.group.size == 1 or not losses:
            return losses, outcomes
        counts = {task: torch.as_tensor(outcome.seen, device=losses[task].device) for task, outcome in outcomes.items()}
        whole = shared_losses(losses, counts, self.group)
        correct = torch.stack([torch.as_tensor(outcomes[task].correct).to(counts[task]) for task in counts])
        hits = self.group.total(torch.stack([correct, torch.stack(list(counts.values()))])).unbind(1)
        return whole, {
            task: Outcome(whole[task].detach(), right, seen, whole[task].detach())
            for task, (right, seen) in zip(whole, hits, strict=True)
        }

    def parameters(self) -> Parameters:
        """What learns now of network and companions, by the task that alone owns it."""
        shared: list[nn.Parameter] = []
        own: dict[str, list[nn.Parameter]] = {}
        for parameter, owner in self._owners:
            if parameter.requires_grad:
                (shared if owner == SHARED else own.setdefault(owner, [])).append(parameter)
        return Parameters(shared, own, self._last)

    @cached_property
    def _owners(self) -> list[tuple[nn.Parameter, str]]:
        owners = {id(p): owner for owner, named in self._groups().items() for p in named}
        return [(p, owners[id(p)]) for p in self._parameters() if id(p) in owners]

    def _groups(self) -> dict[str, list[nn.Parameter]]:
        """What counts as the network's parameters, by owner."""
        return {owner: list(named.values()) for owner, named in self.network.parameter_groups().items()}

    @cached_property
    def _last(self) -> nn.Parameter | None:
        """The weight of the last convolution that tasks share of the pool (in the order of its modules)."""
        named = self.network.parameter_groups()[SHARED]
        convs = [p for name, p in named.items() if name.startswith("pool.") and p.ndim == 4]
        return convs[-1] if convs else None

    def _clipped(self) -> list[nn.Parameter]:
        """The weights' own gradients count in the norm where they come from the same sum as the network's."""
        if isinstance(self.weighting, GradientWeighting):
            return [parameter for parameter, _ in self._owners]
        return self._parameters()

    def _metrics(self, outcomes: Mapping[str, Outcome]) -> dict[str, Tensor] | None:
        """Each task's key metric for a weighting that asks for it."""
        if not self.weighting.uses_metrics:
            return None
        return {task: outcome.correct / outcome.seen for task, outcome in outcomes.items()}

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass
class TrainingStep(Step):
    """A step of classification: every task has a batch of its own.

    `accumulate` splits the tasks into parts one after the other, `workers` into parts at the same time; neither changes
    the result. A weighting that looks at gradients has every task by itself, whatever they say.
    """

    network: AttentionNetwork
    accumulate: int = 1
    label_smoothing: float = 0.0
    workers: Workers | None = None  # only where no two tasks move the same running statistics
    compile: bool = False  # by torch.compile; each set of tasks and sizes anew, and not together with workers
    distillation: Distillation | None = None  # teachers that add to the losses

    def __post_init__(self) -> None:
        answer = self.network.answer
        self._answer = torch.compile(answer, dynamic=False) if self.compile else answer

    @property
    def companions(self) -> dict[str, nn.Module]:
        return {**super().companions, **({"distillation": self.distillation} if self.distillation else {})}

    def begin_epoch(self, done: float) -> None:
        if self.distillation:
            self.distillation.left = 1 - done

    def learn(self, batches: Mapping[str, Batch]) -> dict[str, Outcome]:
        if isinstance(self.weighting, GradientWeighting):
            return self._learn_each(self.weighting, batches)
        outcomes: dict[str, Outcome] = {}
        for tasks in _chunks(list(batches), self.accumulate):
            outcomes |= self._learn({task: batches[task] for task in tasks})
        return outcomes

    def _learn_each(self, weighting: GradientWeighting, batches: Mapping[str, Batch]) -> dict[str, Outcome]:
        """Add the gradients that the weighting makes of each task's own, which has a graph of its own."""
        parameters = self.parameters()

        def row(task: str) -> tuple[Row, dict[str, Outcome]]:
            losses, seen = self.losses({task: batches[task]})
            return next(self.group.rows(rows_of(losses, parameters))), seen

        made: Iterable[tuple[Row, dict[str, Outcome]]] = map(row, batches)
        if self.workers is not None and len(batches) > 1:
            made = self.workers.map(row, batches)
        outcomes: dict[str, Outcome] = {}

        def rows() -> Iterator[Row]:
            for each, seen in made:
                outcomes.update(seen)
                yield each

        weighting.gather(rows(), parameters)
        return outcomes

    def _groups(self) -> dict[str, list[nn.Parameter]]:
        groups = super()._groups()
        for task, layer in self.distillation.align.items() if self.distillation else ():
            groups[task] += layer.parameters()
        return groups

    def _learn(self, batches: Mapping[str, Batch]) -> dict[str, Outcome]:
        """Add the gradients of these batches to the parameters'."""
        parts = deal(
            {task: len(batch.labels) for task, batch in batches.items()}, self.workers.count if self.workers else 1
        )
        if self.workers is None or len(parts) == 1:
            losses, outcomes = self.losses(batches)
            self.weighting.combine(losses, self._metrics(outcomes)).backward()
            return outcomes
        made = self.workers.map(self._gradients, [{task: batches[task] for task in part} for part in parts])
        for gradients, _ in made:  # summed in this order, whoever was ready first
            add_gradients(self._parameters(), gradients)
        return {task: outcome for _, outcomes in made for task, outcome in outcomes.items()}

    def _gradients(self, batches: Mapping[str, Batch]) -> tuple[Sequence[Tensor | None], dict[str, Outcome]]:
        losses, outcomes = self.losses(batches)
        learning = [p for p in self._parameters() if p.requires_grad]
        total = self.weighting.combine(losses, self._metrics(outcomes))
        made = iter(torch.autograd.grad(total, learning, allow_unused=True))
        return [next(made) if p.requires_grad else None for p in self._parameters()], outcomes

    def losses(self, batches: Mapping[str, Batch]) -> tuple[dict[str, Tensor], dict[str, Outcome]]:
        """Each task's raw loss, to be differentiated, and what was seen."""
        device = next(self.network.parameters()).device
        with autocast(device, self.precision):
            images = {task: batch.images for task, batch in batches.items()}
            answer = self._answer(images)
            taught = self.distillation.taught(images) if self.distillation else None
        losses, outcomes = {}, {}
        for task, batch in batches.items():
            logits = answer.logits[task]
            scores = logits if logits.dtype == torch.float64 else logits.float()
            raw = classification_loss(scores, batch, self.label_smoothing)
            losses[task] = raw + self.distillation.loss(task, answer, taught) if self.distillation and taught else raw
            correct = (scores.argmax(1) == batch.labels).sum()
            outcomes[task] = Outcome(raw.detach(), correct, len(batch.labels), losses[task].detach())
        return self._agreed(losses, outcomes)


def classification_loss(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of logits (batch, classes) in nats; mixed labels share it."""
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    if batch.other_labels is None:
        return loss
    other = F.cross_entropy(logits, batch.other_labels, label_smoothing=label_smoothing)
    return batch.share * loss + (1 - batch.share) * other


def _chunks(tasks: Sequence[str], parts: int) -> Iterator[Sequence[str]]:
    size = -(-len(tasks) // parts)
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]


def _check_finite(outcomes: Mapping[str, Outcome]) -> None:
    """On a GPU this is the one point of a step that waits for the device."""
    if not outcomes:
        return
    losses = torch.stack([outcome.total for outcome in outcomes.values()])
    if not bool(torch.isfinite(losses).all()):
        for task, outcome in outcomes.items():
            if not torch.isfinite(outcome.total):
                raise NotFiniteError(task, outcome.total.item())
