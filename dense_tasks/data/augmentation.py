"""Another look at the same scene: through a camera of a longer focal length, and in a mirror.

All labels change with the image as geometry wants it: seen with `scale` times the focal length, a thing looks as one `scale`
times nearer does, so depth is divided by the scale (inverse depth multiplied); normals stay; in a mirror their x is negated.
Labels are never mixed: each pixel takes those of the nearest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dense_tasks.tasks import Task


@dataclass(frozen=True)
class Augmentation:
    """One of `scales` is drawn for each image, and where its window lies; `mirror`: every second image, by chance.

    Off by default, as in the paper; later work uses scales (1, 1.2, 1.5) and mirrors.
    """

    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1:
            raise ValueError(f"Augmentation: expected scales of at least 1, found {self.scales}.")

    @property
    def changes(self) -> bool:
        """Whether it does anything at all."""
        return self.mirror or set(self.scales) != {1.0}


@dataclass(frozen=True)
class Views:
    """What is drawn for each image of a batch: the window's top left corner in whole pixels, its scale, and mirroring."""

    scales: np.ndarray  # float64
    tops: np.ndarray  # int64
    lefts: np.ndarray  # int64
    mirrored: np.ndarray  # bool

    def __getitem__(self, rows: slice) -> "Views":
        """Those of some images."""
        return Views(self.scales[rows], self.tops[rows], self.lefts[rows], self.mirrored[rows])


def draw_views(count: int, size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator) -> Views:
    """Views of `count` images of `size` (height, width); a window of scale s holds 1/s of each side."""
    scales = np.array(augmentation.scales)[rng.integers(len(augmentation.scales), size=count)]
    free = np.floor(np.array(size)[:, None] * (1 - 1 / scales)) + 1  # whole-pixel places that a window can take
    tops, lefts = np.floor(rng.random((2, count)) * free).astype(np.int64)
    mirrored = rng.random(count) < 0.5 if augmentation.mirror else np.zeros(count, dtype=bool)
    return Views(scales, tops, lefts, mirrored)


def apply_views(
    images: Float[Tensor, "batch 3 height width"], labels: Mapping[str, Tensor], views: Views, tasks: Mapping[str, Task]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Images and labels as these views show them, on the device that they are on. What a view leaves alone is not touched."""
    changed = dict(labels)
    zoomed = torch.from_numpy(np.flatnonzero(views.scales != 1)).to(images.device)
    if len(zoomed):
        window = _Window(views, zoomed, images)
        images = images.index_copy(0, zoomed, window.image(images[zoomed]))
        for name, values in changed.items():
            seen = tasks[name].zoomed(window.labels(values[zoomed]), window.scales)
            changed[name] = values.index_copy(0, zoomed, seen)
    mirrored = torch.from_numpy(np.flatnonzero(views.mirrored)).to(images.device)
    if len(mirrored):
        images = images.index_copy(0, mirrored, images[mirrored].flip(-1))
        for name, values in changed.items():
            changed[name] = values.index_copy(0, mirrored, tasks[name].mirrored(values[mirrored].flip(-1)))
    return images, changed


class _Window:
    """Where the pixels of the zoomed images come from: rows and columns of the originals, pixel centres at halves."""

    def __init__(self, views: Views, chosen: Tensor, images: Tensor) -> None:
        places = chosen.cpu().numpy()
        scales = views.scales[places, None]
        rows, columns = (
            start[places, None] + (np.arange(length) + 0.5) / scales
            for start, length in zip((views.tops, views.lefts), images.shape[-2:], strict=True)
        )
        self.scales = torch.from_numpy(scales[:, 0]).to(images.device, images.dtype)
        self._rows, self._columns = (torch.from_numpy(at).to(images.device) for at in (rows, columns))

    def image(self, images: Tensor) -> Tensor:
        """Bilinear between pixel centres; beyond the outermost ones their values hold."""
        height, width = images.shape[-2:]
        across, down = 2 * self._columns / width - 1, 2 * self._rows / height - 1
        grid = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=-1)
        return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)

    def labels(self, labels: Tensor) -> Tensor:
        """Those of the pixel in which a point lies."""
        batch = torch.arange(len(labels), device=labels.device)[:, None, None]
        rows, columns = self._rows.long()[:, :, None], self._columns.long()[:, None, :]
        if labels.ndim == 3:
            return labels[batch, rows, columns]
        return labels.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)
