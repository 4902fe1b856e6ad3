"""What a dense task is: everything that the rest of the room asks about it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dense_tasks.metrics import Measure, Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes", np.ndarray], None]


def _as_it_is(values: Tensor) -> Tensor:
    return values


def _same_at_any_scale(labels: Tensor, scale: Tensor) -> Tensor:
    return labels


def _no_problem(values: np.ndarray) -> str | None:
    return None


@dataclass(frozen=True)
class Task:
    """A task in one place. Outputs are (batch, channels, H, W); labels (batch, H, W) int64 where `dtype` is that, else
    (batch, label_channels, H, W) float32. Where nothing is known all of a pixel's labels are `undefined`.

    `loss(outputs, labels)` takes final predictions and gives a scalar, or None where the batch has no label at all.
    `finish` makes final predictions from what a head gives. `metrics()` is a fresh accumulator, `measures` say what its result
    holds; `key_hits(outputs, labels)` counts right and defined pixels, whose quotient is the task's `key_metric` (a share,
    higher is better).
    `problem(labels)` looks at one file's array and says what is wrong with it, as the end of a sentence "found ...".
    `zoomed(labels, scale)` and `mirrored(labels)` change the labels' values (the pixels are moved elsewhere) when the image is
    seen by a camera of `scale` (batch,) times the focal length, and in a mirror. `draw(axes, prediction)` draws one prediction
    (channels, H, W) or label (H, W) / (label_channels, H, W).
    """

    name: str
    channels: int
    folder: str  # labels lie in `<root>/<split>/<folder>/<n>.npy`
    loss: Callable[[Tensor, Tensor], Tensor | None]
    metrics: Callable[[], Metrics]
    measures: tuple[Measure, ...]
    key_metric: str
    key_hits: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    draw: Draw
    finish: Callable[[Tensor], Tensor] = _as_it_is
    dtype: torch.dtype = torch.float32
    label_channels: int = 1
    undefined: int = 0
    problem: Callable[[np.ndarray], str | None] = _no_problem
    zoomed: Callable[[Tensor, Tensor], Tensor] = _same_at_any_scale
    mirrored: Callable[[Tensor], Tensor] = _as_it_is

    def measure(self, name: str) -> Measure:
        """The measure of this name. Raises KeyError if the task has none."""
        return {measure.name: measure for measure in self.measures}[name]

    def blank(self, batch: int, height: int, width: int) -> Tensor:
        """Labels of which nothing is known, with channels last where there are any."""
        shape = (batch, height, width) if self.dtype == torch.int64 else (batch, height, width, self.label_channels)
        return torch.full(shape, self.undefined, dtype=self.dtype)


def full_precision(outputs: Tensor) -> Tensor:
    """Losses are computed in fp32, or fp64 where the network is."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def mean_where(values: Tensor, defined: Tensor) -> Tensor | None:
    """The mean of the defined values; None where there are none, which on a GPU waits for the device."""
    count = defined.sum()
    return torch.where(defined, values, 0).sum() / count if bool(count) else None
