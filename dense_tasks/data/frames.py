"""Batches of a split, straight from the memory-mapped arrays into one tensor per kind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dense_tasks.data.arrays import IMAGE, ArrayError, copy_image, image_array, label_array
from dense_tasks.data.augmentation import Augmentation, apply_views, draw_views
from dense_tasks.data.root import Root
from dense_tasks.tasks import Task
from mtan_core.errors import UserError
from mtan_core.parallel import ALONE, Group
from mtan_core.sampling import keyed_generator


class DenseBatch(NamedTuple):
    """Images (batch, 3, H, W) in [0, 1], and every task's labels; undefined where an image has none."""

    images: Tensor
    labels: Mapping[str, Tensor]


@dataclass(frozen=True)
class Frames:
    """The images and labels of a split, on `device`."""

    root: Root
    split: str
    device: torch.device

    def __len__(self) -> int:
        return len(self.root.frames[self.split])

    def batch(self, places: np.ndarray) -> DenseBatch:
        """The frames at these places of the split. Raises UserError for a file that changed since it was looked at."""
        frames = [self.root.frames[self.split][place] for place in places]
        height, width = self.root.size
        images = torch.empty(len(frames), height, width, 3)
        for place, frame in enumerate(frames):
            self._read(IMAGE, frame, None, images.numpy()[place])
        labels = {name: self._labels(task, frames) for name, task in self.root.tasks.items()}
        return DenseBatch(images.permute(0, 3, 1, 2).to(self.device), labels)

    def training(
        self, places: np.ndarray, drawn: int, augmentation: Augmentation, seed: int, group: Group = ALONE
    ) -> DenseBatch:
        """This process's part of the augmented frames.

        The seed and the number of the batch in its stream determine all randomness, which is drawn for the whole batch.
        """
        part = group.part(len(places))
        batch = self.batch(places[part])
        if not augmentation.changes:
            return batch
        rng = keyed_generator(seed, "augment", self.split, drawn)
        views = draw_views(len(places), self.root.size, augmentation, rng)
        return DenseBatch(*apply_views(batch.images, batch.labels, views[part], self.root.tasks))

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """The places of the whole split in order, in chunks."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))

    def _labels(self, task: Task, frames: list[str]) -> Tensor:
        labels = task.blank(len(frames), *self.root.size)
        for place, frame in enumerate(frames):
            if frame not in self.root.unlabelled[self.split][task.name]:
                self._read(task.folder, frame, task, labels.numpy()[place])
        return (labels if labels.ndim == 3 else labels.permute(0, 3, 1, 2)).to(self.device)

    def _read(self, folder: str, frame: str, task: Task | None, into: np.ndarray) -> None:
        path = self.root.file(self.split, folder, frame)
        try:
            array = image_array(path) if task is None else label_array(path, task)
        except (ArrayError, FileNotFoundError) as problem:
            raise UserError(f"{path}: expected the array that was there at the start, found {problem}.") from None
        if array.shape != into.shape:
            raise UserError(f"{path}: expected shape {into.shape}, found {array.shape}: the file has changed.")
        if task is None:
            copy_image(array, into)
        else:
            np.copyto(into, array, casting="unsafe")
