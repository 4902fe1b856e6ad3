"""Multi-task learning as a bargaining game."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mtan_core.aggregation import Aggregator


class NashMTL(Aggregator):
    """Nash-MTL (Navon et al. 2022, equation 3): the bargaining solution, positive weights a with G a = 1 / a.

    G are the gradients' scalar products. The combined gradient then has the length sqrt(number of tasks), whatever the
    gradients, and is cut to `max_norm` (0: not cut) as in the authors' code: learning rates do not carry over from equal
    weights. Solved every `update_every` steps; in between weights stay.

    a minimises a'Ga / 2 - sum log a, which is convex, so that Newton's method finds it to the last digits. The authors'
    sequence of convex programs, which torchjd follows, is slower and stays where it begins if that is not feasible.
    """

    source = "Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya, Multi-task learning as a bargaining game, ICML 2022"
    of_mean = False

    def __init__(self, tasks: Sequence[str], seed: int = 0, max_norm: float = 1.0, update_every: int = 1) -> None:
        super().__init__(tasks, seed)
        if not max_norm >= 0:
            raise ValueError(f"`max_norm` must not be negative. Found {max_norm}.")
        if update_every < 1:
            raise ValueError(f"`update_every` must be at least 1. Found {update_every}.")
        self.max_norm, self.update_every = max_norm, update_every
        self.solution: dict[str, float] = {}

    def solve(self, gramian: Float[Tensor, "tasks tasks"], tasks: Sequence[str]) -> Float[Tensor, " tasks"]:
        return bargain(gramian.double())

    def limited(
        self, weights: Float[Tensor, " tasks"], gramian: Float[Tensor, "tasks tasks"], tasks: Sequence[str]
    ) -> Float[Tensor, " tasks"]:
        if (self.steps - 1) % self.update_every == 0 or any(task not in self.solution for task in tasks):
            self.solution |= dict(zip(tasks, (weights / gramian.trace().sqrt()).tolist(), strict=True))
        weights = torch.tensor([self.solution[task] for task in tasks], dtype=torch.float64)
        length = float((weights @ gramian @ weights).clamp(min=0).sqrt())
        return weights * (self.max_norm / length) if self.max_norm and length > self.max_norm else weights

    def memory(self) -> dict[str, Any]:
        return {**super().memory(), "solution": self.solution}

    def recall(self, memory: Mapping[str, Any]) -> None:
        super().recall(memory)
        self.solution = dict(memory["solution"])


def bargain(gramian: Float[Tensor, "tasks tasks"], ridge: float = 1e-8) -> Float[Tensor, " tasks"]:
    """Positive a with G a = 1 / a, by Newton's method with the step that self-concordance allows.

    `ridge` times the trace, added to the diagonal, keeps weights finite where tasks oppose each other entirely.
    """
    gramian = gramian + ridge * gramian.trace() * torch.eye(len(gramian), dtype=gramian.dtype)
    a = gramian.diagonal().rsqrt()
    for _ in range(100):
        slope = gramian @ a - 1 / a
        move = torch.linalg.solve(gramian + torch.diag(a**-2), slope)
        decrement = (slope @ move).clamp(min=0).sqrt()
        a = a - move / (1 + decrement)
        if decrement < 1e-12:
            break
    return a


WEIGHTING = NashMTL
