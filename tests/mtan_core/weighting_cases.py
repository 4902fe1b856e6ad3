"""Losses of one graph whose gradients are known, for tests of weightings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtan_core.weighting import Parameters, Weighting
from mtan_core.weightings import make_weighting, weightings

TASKS = ("digits", "flowers", "signs")
KINDS = weightings()
AGGREGATORS = ("aligned-mtl", "cagrad", "imtl-g", "mgda", "nash-mtl", "pcgrad", "upgrad")
OPTIONS: dict[str, Any] = {"weights": {"digits": 0.25, "signs": 4.0}, "seed": 5}
Matrix = NDArray[np.float64]


def weighting(kind: str, tasks: Sequence[str] = TASKS, **options: Any) -> Weighting:
    """In float64."""
    return make_weighting(kind, tasks, **{**OPTIONS, **options}).double()


@dataclass
class Problem:
    """loss_t = value_t + J_t x + 2 sum(y_t): the Jacobian for the shared x is J, the gradient for the task's own y_t is 2."""

    losses: dict[str, Tensor]
    parameters: Parameters
    metrics: dict[str, Tensor]

    @property
    def shared(self) -> Matrix:
        """The gradient that the shared parameters have."""
        (x,) = self.parameters.shared
        assert x.grad is not None
        return x.grad.numpy()


def problem(rows: Mapping[str, Sequence[float]], values: Mapping[str, float] | None = None) -> Problem:
    """Rows of the Jacobian by task, and the losses' values (1); the key metrics are 0.2, 0.4, ..."""
    x = nn.Parameter(torch.zeros(len(next(iter(rows.values()))), dtype=torch.float64))
    own = {task: [nn.Parameter(torch.zeros(2, dtype=torch.float64))] for task in rows}
    losses = {
        task: torch.tensor((values or {}).get(task, 1.0), dtype=torch.float64)
        + torch.tensor(row, dtype=torch.float64) @ x
        + 2 * own[task][0].sum()
        for task, row in rows.items()
    }
    metrics = {task: torch.tensor(0.2 + 0.2 * TASKS.index(task), dtype=torch.float64) for task in rows}
    return Problem(losses, Parameters([x], own, x), metrics)


def step(
    made: Weighting, rows: Mapping[str, Sequence[float]], values: Mapping[str, float] | None = None, lr: float = 0.0
) -> tuple[Problem, dict[str, float]]:
    """A step of these tasks; the weighting's parameters move by `lr`. Returns the weights that it was made with, too."""
    posed = problem(rows, values)
    learnt = torch.optim.SGD([*made.parameters(), nn.Parameter(torch.zeros(1))], lr=lr)
    learnt.zero_grad()
    made.begin_step()
    made.backward(posed.losses, posed.parameters, posed.metrics)
    used = made.weights()
    learnt.step()
    made.end_step(rows)
    return posed, used


def matrix(rows: Mapping[str, Sequence[float]]) -> Matrix:
    return np.array(list(rows.values()), dtype=np.float64)


def random_rows(seed: int, size: int = 5, tasks: Sequence[str] = TASKS) -> dict[str, list[float]]:
    """Rows of a Jacobian, of different lengths and partly in conflict."""
    rng = np.random.default_rng(seed)
    return {task: (rng.standard_normal(size) * rng.uniform(0.3, 3)).tolist() for task in tasks}
