"""Dynamic Task Prioritization."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtan_core.weighting import StepWeighting


class DynamicTaskPrioritization(StepWeighting):
    """Dynamic Task Prioritization (Guo et al. 2018, equations 3 and 4): more weight to a task that does badly.

    weight = -(1 - k)^gamma log k, k the exponential average of the task's key metric, from 0 to 1, in which the present
    step counts with `share`. Below `FLOOR` k counts as `FLOOR`, which bounds weights. Without any metric yet a weight is 1.
    """

    source = "Guo, Haque, Huang, Yeung, Fei-Fei, Dynamic task prioritization for multitask learning, ECCV 2018"
    uses_metrics = True
    FLOOR = 1e-3

    averages: Tensor

    def __init__(self, tasks: Sequence[str], seed: int = 0, gamma: float = 1.0, share: float = 0.1) -> None:
        super().__init__(tasks, seed)
        if not gamma >= 0:
            raise ValueError(f"`gamma` must not be negative. Found {gamma}.")
        if not 0 < share <= 1:
            raise ValueError(f"`share` must be above 0 and at most 1. Found {share}.")
        self.gamma, self.share = gamma, share
        self.register_buffer("averages", torch.full((len(self.tasks),), torch.nan))

    def combine(self, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor] | None = None) -> Tensor:
        for task, metric in (metrics or {}).items():
            average = self.averages[self.tasks.index(task)]  # a view: each part of a step moves its own tasks'
            average.copy_(torch.where(average.isnan(), metric, average.lerp(metric.to(average), self.share)))
        weights = self._weights()
        return torch.stack([weights[self.tasks.index(task)] * loss for task, loss in losses.items()]).sum()

    def _weights(self) -> Tensor:
        k = self.averages.clamp(self.FLOOR, 1)
        return torch.where(k.isnan(), 1.0, -((1 - k) ** self.gamma) * k.log())

    def weights(self) -> dict[str, float]:
        return dict(zip(self.tasks, self._weights().tolist(), strict=True))


WEIGHTING = DynamicTaskPrioritization
