"""Conflict-averse gradients."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mtan_core.aggregation import Aggregator


class CAGrad(Aggregator):
    """CAGrad (Liu et al. 2021, algorithm 1): the direction near the sum of gradients that helps the worst-off task most.

    `c` is how far it may leave the mean of the gradients, relative to that mean's length; 0 is the sum.
    """

    source = "Liu, Liu, Jin, Stone, Liu, Conflict-averse gradient descent for multi-task learning, NeurIPS 2021"

    def __init__(self, tasks: Sequence[str], seed: int = 0, c: float = 0.4) -> None:
        super().__init__(tasks, seed)
        if not c >= 0:
            raise ValueError(f"`c` must not be negative. Found {c}.")
        self.c = c

    @cached_property
    def solver(self) -> Any:
        from torchjd.aggregation import CAGradWeighting

        return CAGradWeighting(self.c)

    def solve(self, gramian: Float[Tensor, "tasks tasks"], tasks: Sequence[str]) -> Float[Tensor, " tasks"]:
        weights = self.solver(gramian)
        # torchjd stops where tasks oppose each other entirely or one has no gradient; the authors' code takes the mean
        return weights if weights.any() else torch.full_like(weights, 1 / len(tasks))


WEIGHTING = CAGrad
