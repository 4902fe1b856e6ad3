"""Gradient aggregators: how the gradients of several tasks for what they share become one direction, by torchjd.

The Jacobian is that of the losses with respect to all shared parameters, those of the pool and those of the ladders' shared
convolutions, which lie behind the tasks' own masks (torchjd's `mtl_backward` takes whatever is behind the features for a
task's own). torchjd is imported with the first step.
"""

import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mtan_core.weighting import GradientWeighting, Parameters, Row, add_gradients


class Aggregator(GradientWeighting):
    """Shared parameters get a combination of the tasks' gradients, whose weights depend on the gradients' products alone.

    What a task owns gets its own loss's gradient, weight 1. torchjd's weights for aggregators that generalise the *mean* of
    gradients (`of_mean`) are multiplied by the number of tasks, so that they compare with the sum, as equal weights are
    (as in the CAGrad authors' code). Tasks are handed over in alphabetical order, so that theirs does not matter.
    """

    of_mean: ClassVar[bool] = True

    def __init__(self, tasks: Sequence[str], seed: int = 0) -> None:
        super().__init__(tasks, seed)
        self._used: dict[str, float] = {}

    @cached_property
    def solver(self) -> Any:
        """torchjd's weighting of a Gramian."""
        raise NotImplementedError

    def solve(self, gramian: Float[Tensor, "tasks tasks"], tasks: Sequence[str]) -> Float[Tensor, " tasks"]:
        """The weights of these tasks, whose gradients have these products; weights do not depend on their scale."""
        return self.solver(gramian)

    def weights(self) -> dict[str, float]:
        """Those of the step that is being made, by task."""
        return dict(self._used)

    def gather(self, rows: Iterable[Row], parameters: Parameters) -> None:
        made = list(rows)
        for row in made:
            add_gradients(parameters.own.get(row.task, ()), row.own)
        ordered = sorted(made, key=lambda row: row.task)
        gramian = gramian_of([row.shared for row in ordered])
        if gramian is None:  # nothing shared learns in this step
            return
        self._used = self._weigh(gramian, [row.task for row in ordered], made[0].loss.dtype)
        for row in made:
            add_gradients(parameters.shared, row.shared, self._used[row.task])

    def _weigh(self, gramian: Tensor, tasks: Sequence[str], precision: torch.dtype) -> dict[str, float]:
        """Weights of a step. 1 where gradients are all zero or not all finite (which the next loss will tell)."""
        scale = gramian.trace()
        if not (torch.isfinite(gramian).all() and scale > 0):
            return dict.fromkeys(tasks, 1.0)
        with warnings.catch_warnings():  # solvers warn of inaccurate solutions
            warnings.simplefilter("ignore")
            # in the gradients' own precision, from which solvers tell what is rounding
            weights = self.solve((gramian / scale).to(precision), tasks).double()
        if self.of_mean:
            weights = weights * len(tasks)
        return dict(zip(tasks, self.limited(weights, gramian, tasks).tolist(), strict=True))

    def limited(
        self, weights: Float[Tensor, " tasks"], gramian: Float[Tensor, "tasks tasks"], tasks: Sequence[str]
    ) -> Float[Tensor, " tasks"]:
        """A last word on the weights, given the products of the gradients as they are."""
        return weights

    def end_step(self, tasks: Iterable[str]) -> None:
        self.note(self._used)
        self._used = {}


def gramian_of(rows: Sequence[Sequence[Tensor | None]]) -> Float[Tensor, "tasks tasks"] | None:
    """The scalar products of the rows of a Jacobian, which come parameter by parameter; on the CPU, summed in float64.

    None where no row reaches a parameter.
    """
    total = None
    for gradients in zip(*rows, strict=True):
        some = next((gradient for gradient in gradients if gradient is not None), None)
        if some is not None:
            matrix = torch.stack([torch.zeros_like(some) if g is None else g for g in gradients]).flatten(1)
            products = (matrix @ matrix.T).double()
            total = products if total is None else total + products
    return None if total is None else total.cpu()
