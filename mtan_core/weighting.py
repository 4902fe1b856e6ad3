"""Loss weightings: how the losses of several tasks become one. They receive losses, never the trainer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Weighting(nn.Module):
    """What every weighting offers; this one weighs all tasks equally (each weight is 1).

    `tasks` are all tasks of the run. A step may bring any part of them. Weights are the factors of the raw losses.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum of weighted losses, to be differentiated. `losses` are raw scalars by task."""
        weights = self.weights()
        return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()

    def weights(self) -> dict[str, float]:
        """The current weight of each task."""
        return dict.fromkeys(self.tasks, 1.0)

    def end_epoch(self, mean_losses: Mapping[str, float]) -> None:
        """Learn an epoch's mean raw losses; tasks that were not drawn in it are left out."""

    def memory(self) -> dict[str, Any]:
        """What is remembered beyond the parameters, as plain JSON; `recall` takes it back."""
        return {}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""


class Equal(Weighting):
    """Every weight is 1."""


class Fixed(Weighting):
    """Weights given by the user; a task without one has 1."""

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float]) -> None:
        super().__init__(tasks)
        self._weights = {task: float(weights.get(task, 1.0)) for task in tasks}

    def weights(self) -> dict[str, float]:
        return dict(self._weights)


class Uncertainty(Weighting):
    """Homoscedastic uncertainty (Kendall, Gal, Cipolla, CVPR 2018): sum of exp(-s) L factor + s / 2, s learnt per task.

    s = log sigma^2 starts at -0.5 and the factor is 1/2 for every task, as in the MTAN authors' code. `kendall` uses
    the factor of Kendall's own formula for classification, which is 1. The sum turns negative when losses are small:
    that is the formula's log term, not a fault.
    """

    def __init__(self, tasks: Sequence[str], kendall: bool = False) -> None:
        super().__init__(tasks)
        self.factor = 1.0 if kendall else 0.5
        self.log_variances = nn.ParameterList(nn.Parameter(torch.tensor(-0.5)) for _ in tasks)

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for task, loss in losses.items():
            s = self.log_variances[self.tasks.index(task)]
            terms.append(torch.exp(-s) * loss * self.factor + s / 2)
        return torch.stack(terms).sum()

    def weights(self) -> dict[str, float]:
        rows = zip(self.tasks, self.log_variances, strict=True)
        return {task: math.exp(-s.item()) * self.factor for task, s in rows}


class DynamicWeightAverage(Weighting):
    """Dynamic Weight Average (Liu, Johns, Davison 2019, equation 7): more weight to a task whose loss falls slowly.

    weight_k = K softmax_k(r_k / T), r_k = mean loss of the last epoch / mean loss of the one before. It evens out
    *rates* of learning, not scales. A task with fewer than two epochs of history has r = 1, so that the first two
    epochs have equal weights.
    """

    def __init__(self, tasks: Sequence[str], temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive. Found {temperature}.")
        self.temperature = temperature
        self.history: dict[str, list[float]] = {task: [] for task in tasks}

    def weights(self) -> dict[str, float]:
        ratios = torch.tensor([self._ratio(task) for task in self.tasks], dtype=torch.float64)
        weights = len(self.tasks) * torch.softmax(ratios / self.temperature, dim=0)
        return dict(zip(self.tasks, weights.tolist(), strict=True))

    def _ratio(self, task: str) -> float:
        past = self.history[task]
        return past[-1] / max(past[-2], 1e-8) if len(past) == 2 else 1.0

    def end_epoch(self, mean_losses: Mapping[str, float]) -> None:
        for task, loss in mean_losses.items():
            self.history[task] = [*self.history[task], loss][-2:]

    def memory(self) -> dict[str, Any]:
        return {"history": self.history}

    def recall(self, memory: Mapping[str, Any]) -> None:
        self.history = {task: list(memory["history"].get(task, [])) for task in self.tasks}


def make_weighting(
    kind: str,
    tasks: Sequence[str],
    temperature: float = 2.0,
    weights: Mapping[str, float] | None = None,
    kendall: bool = False,
) -> Weighting:
    """The weighting of that name: "equal", "fixed", "uncertainty" or "dwa"."""
    if kind == "fixed":
        return Fixed(tasks, weights or {})
    if kind == "uncertainty":
        return Uncertainty(tasks, kendall)
    if kind == "dwa":
        return DynamicWeightAverage(tasks, temperature)
    return Equal(tasks)
