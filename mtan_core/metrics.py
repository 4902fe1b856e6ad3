"""Sums from which metrics are made: counts are added up and divided once, so batch sizes do not matter."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What was seen of one task: `loss` is a sum over examples (images, or pixels that have a label), `steps` counts
    batches and `step_losses` adds up their mean losses. `metrics` are further results of a validation.
    """

    correct: int = 0
    seen: int = 0
    loss: float = 0.0
    steps: int = 0
    step_losses: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)

    def add(self, correct: int, seen: int, mean_loss: float) -> None:
        """Add one batch."""
        self.correct += correct
        self.seen += seen
        self.loss += mean_loss * seen
        self.steps += 1
        self.step_losses += mean_loss

    @property
    def accuracy(self) -> float:
        """Fraction of correct answers: the task's key metric. Raises ZeroDivisionError when nothing was seen."""
        return self.correct / self.seen

    @property
    def mean_loss(self) -> float:
        """Mean loss of an example."""
        return self.loss / self.seen

    @property
    def mean_step_loss(self) -> float:
        """Mean over batches of their mean losses: what a loss weighting learns of an epoch."""
        return self.step_losses / self.steps


def mean_accuracy(tallies: Mapping[str, Tally]) -> float:
    """Mean of the tasks' key metrics: the measure that `best` is chosen by."""
    return sum(tally.accuracy for tally in tallies.values()) / len(tallies)
