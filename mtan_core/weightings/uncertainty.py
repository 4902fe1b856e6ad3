"""Homoscedastic uncertainty."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from mtan_core.weighting import Weighting


class Uncertainty(Weighting):
    """Homoscedastic uncertainty (Kendall, Gal, Cipolla 2018): sum of exp(-s) L factor + s / 2, s learnt per task.

    s = log sigma^2 starts at -0.5 and the factor is 1/2 for every task, as in the MTAN authors' code. `kendall` uses
    the factor of Kendall's own formula for classification, which is 1, for the tasks that classify (`classification`; None: all).
    The sum turns negative when losses are small: that is the formula's log term, not a fault.
    """

    source = "Kendall, Gal, Cipolla, Multi-task learning using uncertainty to weigh losses, CVPR 2018"

    def __init__(
        self, tasks: Sequence[str], kendall: bool = False, classification: Collection[str] | None = None
    ) -> None:
        super().__init__(tasks)
        classify = tasks if classification is None else classification
        self.factors = {task: 1.0 if kendall and task in classify else 0.5 for task in tasks}
        self.log_variances = nn.ParameterList(nn.Parameter(torch.tensor(-0.5)) for _ in tasks)

    def combine(self, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor] | None = None) -> Tensor:
        terms = []
        for task, loss in losses.items():
            s = self.log_variances[self.tasks.index(task)]
            terms.append(torch.exp(-s) * loss * self.factors[task] + s / 2)
        return torch.stack(terms).sum()

    def weights(self) -> dict[str, float]:
        rows = zip(self.tasks, self.log_variances, strict=True)
        return {task: math.exp(-s.item()) * self.factors[task] for task, s in rows}


WEIGHTING = Uncertainty
