"""A joint batch: the images of several tasks one after the other, and which stretch belongs to whom."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Where each task's images lie in a joint batch: `tasks[d]` owns the next `sizes[d]` rows."""

    tasks: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Whether all tasks bring the same number of images, so that the batch is a (tasks, images) grid."""
        return len(set(self.sizes)) == 1

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """The tasks' stretches of a tensor whose first axis is the joint batch (views)."""
        return rows.split(list(self.sizes))
