"""Fixed weights, given by the user."""

from collections.abc import Mapping, Sequence

from mtan_core.weighting import Weighting


class Fixed(Weighting):
    """Weights given by the user; a task without one has 1."""

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        super().__init__(tasks)
        self._weights = {task: float((weights or {}).get(task, 1.0)) for task in tasks}

    def weights(self) -> dict[str, float]:
        return dict(self._weights)

    def reweigh(self, weights: Mapping[str, float]) -> None:
        self._weights |= {task: float(weight) for task, weight in weights.items() if task in self._weights}


WEIGHTING = Fixed
