"""What every loss weighting offers: how the losses of several tasks become one step. It is never told of a trainer.

The weightings themselves are in `mtan_core.weightings`, one a file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Parameters:
    """What the losses of a step are differentiated for: what tasks share, and what each of them owns.

    `last` is the one of the shared that GradNorm measures gradients at, the weight of the pool's last convolution.
    """

    shared: Sequence[nn.Parameter]
    own: Mapping[str, Sequence[nn.Parameter]]
    last: nn.Parameter | None = None


@dataclass(frozen=True)
class Row:
    """One task's raw loss and its gradient; None where it does not reach a parameter."""

    task: str
    loss: Tensor
    shared: Sequence[Tensor | None]  # a row of the Jacobian
    own: Sequence[Tensor | None]


class Weighting(nn.Module):
    """A way to weigh losses; this one weighs all tasks equally (each weight is 1).

    `tasks` are all tasks of the run. A step may bring any part of them; the others are left alone. Weights are the factors
    of the raw losses. A step is `begin_step`, `backward` of the losses of one graph (or `combine` of each part's losses,
    differentiated by the caller), the optimiser's step, `end_step`.
    """

    source: ClassVar[str] = ""  # where the formula was published
    uses_metrics: ClassVar[bool] = False  # whether `combine` wants each task's key metric
    compares_gradients: ClassVar[bool] = False  # whether it needs the gradients of all tasks in every step

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)

    def begin_step(self) -> None:
        """Told before a step, so that what it draws is drawn once, whatever parts the step has."""

    def combine(self, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor] | None = None) -> Tensor:
        """The sum of weighted losses, to be differentiated. `losses` are raw scalars by task.

        `metrics` are the tasks' key metrics in this step, from 0 to 1.
        """
        weights = self.weights()
        return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()

    def backward(
        self, losses: Mapping[str, Tensor], parameters: Parameters, metrics: Mapping[str, Tensor] | None = None
    ) -> None:
        """Add the gradients of a step whose losses come from one graph to those of its parameters."""
        self.combine(losses, metrics).backward()

    def end_step(self, tasks: Iterable[str]) -> None:
        """Told after the optimiser's step with these tasks."""

    def weights(self) -> dict[str, float]:
        """The current weight of each task."""
        return dict.fromkeys(self.tasks, 1.0)

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Take these tasks' weights from the user, between epochs. Raises TypeError where weights are not the user's."""
        raise TypeError(f"{type(self).__name__} does not take weights.")

    def epoch_weights(self) -> Mapping[str, float | None]:
        """The weights that the epoch now ending was trained with: its steps' mean where they change from step to step.

        None for a task without steps.
        """
        return self.weights()

    def end_epoch(self, mean_losses: Mapping[str, float]) -> None:
        """Learn an epoch's mean raw losses; tasks that were not drawn in it are left out."""

    def memory(self) -> dict[str, Any]:
        """What is remembered beyond parameters and buffers, as plain JSON; `recall` takes it back."""
        return {}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""


class StepWeighting(Weighting):
    """A weighting whose weights change from step to step: it counts steps and averages the weights of an epoch.

    What it draws is a function of `seed` and the step's number.
    """

    def __init__(self, tasks: Sequence[str], seed: int = 0) -> None:
        super().__init__(tasks)
        self.seed = seed
        self.steps = 0  # begun
        self._sums: dict[str, list[float]] = {}  # of the epoch: sum of weights and number of steps

    def begin_step(self) -> None:
        self.steps += 1

    def end_step(self, tasks: Iterable[str]) -> None:
        weights = self.weights()
        self.note({task: weights[task] for task in tasks})

    def note(self, weights: Mapping[str, float]) -> None:
        """Count the weights of a step in the epoch's mean."""
        for task, weight in weights.items():
            total, steps = self._sums.get(task, (0.0, 0))
            self._sums[task] = [total + weight, steps + 1]

    def epoch_weights(self) -> Mapping[str, float | None]:
        return {task: self._sums[task][0] / self._sums[task][1] if task in self._sums else None for task in self.tasks}

    def end_epoch(self, mean_losses: Mapping[str, float]) -> None:
        self._sums = {}

    def memory(self) -> dict[str, Any]:
        return {"steps": self.steps, "sums": self._sums}

    def recall(self, memory: Mapping[str, Any]) -> None:
        self.steps, self._sums = memory["steps"], {task: list(sums) for task, sums in memory["sums"].items()}


class GradientWeighting(StepWeighting):
    """A weighting that looks at each task's own gradient: a row of the Jacobian of the losses for what tasks share.

    It needs all tasks in every step, and memory for rows: one gradient of the shared parameters per task.
    """

    compares_gradients = True
    keeps_rows: ClassVar[bool] = True  # else they are used up one after the other

    def gather(self, rows: Iterable[Row], parameters: Parameters) -> None:
        """Add what becomes of the tasks' gradients to those of the parameters."""
        raise NotImplementedError

    def combine(self, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor] | None = None) -> Tensor:
        raise TypeError(f"{type(self).__name__} needs the gradient of each task: use `backward` or `gather`.")

    def backward(
        self, losses: Mapping[str, Tensor], parameters: Parameters, metrics: Mapping[str, Tensor] | None = None
    ) -> None:
        self.gather(rows_of(losses, parameters), parameters)


def rows_of(losses: Mapping[str, Tensor], parameters: Parameters) -> Iterator[Row]:
    """Each loss's gradient for what is shared and for what its task owns, by one backward pass per task.

    The passes follow each other, so that autocast and operators without a batched derivative are no obstacle. The last one
    frees the graph.
    """
    last = len(losses) - 1
    for place, (task, loss) in enumerate(losses.items()):
        own = parameters.own.get(task, ())
        wanted = [*parameters.shared, *own]
        made = list(torch.autograd.grad(loss, wanted, retain_graph=place < last, allow_unused=True)) if wanted else []
        shared = len(parameters.shared)
        yield Row(task, loss.detach(), made[:shared], made[shared:])


def row_bytes(weighting: Weighting, parameters: Parameters, tasks: Sequence[str], at_once: bool = False) -> int:
    """Bytes of the tasks' own gradients that a weighting compares: rows of the Jacobian, and what each task owns.

    `at_once`: the rows of all tasks are made at the same time.
    """
    if not isinstance(weighting, GradientWeighting):
        return 0
    rows = len(tasks) if weighting.keeps_rows or at_once else 1
    own = [p for task in tasks for p in parameters.own.get(task, ())]
    return rows * byte_count(parameters.shared) + byte_count(own)


def byte_count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def add_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], factor: float = 1.0) -> None:
    """As `backward` does: what autograd gave may be one tensor for several parameters, and of another memory format."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
            if factor != 1.0:
                parameter.grad.mul_(factor)
        else:
            parameter.grad.add_(gradient, alpha=factor)
