"""Dynamic Weight Average."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mtan_core.weighting import Weighting


class DynamicWeightAverage(Weighting):
    """Dynamic Weight Average (Liu, Johns, Davison 2019, equation 7): more weight to a task whose loss falls slowly.

    weight_k = K softmax_k(r_k / T), r_k = mean loss of the last epoch / mean loss of the one before. It evens out
    *rates* of learning, not scales. A task with fewer than two epochs of history has r = 1, so that the first two
    epochs have equal weights.
    """

    source = "Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019"

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


WEIGHTING = DynamicWeightAverage
