"""Depth of every pixel in metres, or inverse depth where the data set has that."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from dense_tasks.datasets import Dataset
from dense_tasks.metrics import DepthMetrics, Measure
from dense_tasks.tasks.task import Task, full_precision, mean_where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEAR = 1.25  # the ratio of predicted to true depth that counts as right

Maps = Float[Tensor, "batch 1 height width"]


def task(dataset: Dataset) -> Task:
    """One number per pixel, as the head gives it; 0 is undefined."""
    errors = (
        Measure("absolute_error", False),
        Measure("relative_error", False),
        Measure("rmse", False, in_delta=False),
    )
    shares = tuple(Measure(f"within_1.25{power}", True, in_delta=False) for power in ("", "^2", "^3"))
    return Task(
        name="depth",
        channels=1,
        folder="depth",
        loss=absolute_error,
        metrics=DepthMetrics,
        measures=errors + shares,
        key_metric="within_1.25",
        key_hits=_near_pixels,
        draw=lambda axes, values: _draw(axes, values, dataset.inverse_depth),
        problem=_problem,
        # With `scale` times the focal length a thing looks as one `scale` times nearer does.
        zoomed=_nearer_inverse if dataset.inverse_depth else _nearer,
    )


def absolute_error(outputs: Maps, labels: Maps) -> Float[Tensor, ""] | None:
    """Mean absolute error (L1) over the defined pixels, in the labels' unit."""
    return mean_where((full_precision(outputs) - labels).abs(), _defined(labels))


def _defined(labels: Maps) -> Bool[Tensor, "batch 1 height width"]:
    return labels > 0


def _near_pixels(outputs: Maps, labels: Maps) -> tuple[Tensor, Tensor]:
    """Without division, so that a prediction at or behind the camera is never near."""
    near = (outputs < _NEAR * labels) & (labels < _NEAR * outputs)
    return (near & _defined(labels)).sum(), _defined(labels).sum()


def _nearer(labels: Maps, scale: Float[Tensor, " batch"]) -> Maps:
    return labels / scale[:, None, None, None]


def _nearer_inverse(labels: Maps, scale: Float[Tensor, " batch"]) -> Maps:
    return labels * scale[:, None, None, None]


def _problem(depth: np.ndarray) -> str | None:
    low, high = float(depth.min()), float(depth.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return "a depth that is NaN or infinite"
    return f"a negative depth, {low:g} (0 is undefined)" if low < 0 else None


def _draw(axes: "Axes", values: np.ndarray, inverse: bool) -> None:
    """Heat with a scale bar; undefined pixels are white."""
    depth = np.ma.masked_equal(values.reshape(values.shape[-2:]).astype(np.float64), 0)
    drawn = axes.imshow(depth, cmap="inferno" if inverse else "inferno_r", interpolation="nearest")
    assert axes.figure is not None
    bar = axes.figure.colorbar(drawn, cax=axes.inset_axes((0, -0.09, 1, 0.05)), orientation="horizontal")
    bar.ax.locator_params(nbins=5)  # more long numbers than that would lie over each other
    bar.ax.tick_params(labelsize=6, length=2, pad=1)
    bar.set_label("inverse depth" if inverse else "depth (m)", fontsize=6, labelpad=1)
