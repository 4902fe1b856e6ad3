"""Surface normal of every pixel: a unit vector, x to the right, y up, z to the camera."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dense_tasks.datasets import Dataset
from dense_tasks.metrics import ANGLES, AngleMetrics, Measure, angles_between
from dense_tasks.tasks.task import Task, full_precision, mean_where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LENGTH_TOLERANCE = 0.01  # float16 components are within 0.001

Vectors = Float[Tensor, "batch 3 height width"]


def task(dataset: Dataset) -> Task:
    """Three components per pixel, made a unit vector; (0, 0, 0) is undefined."""
    errors = (Measure("angle_mean", False), Measure("angle_median", False))
    return Task(
        name="normal",
        channels=3,
        folder="normal",
        loss=one_minus_cosine,
        metrics=AngleMetrics,
        measures=errors + tuple(Measure(f"within_{limit:g}", True) for limit in ANGLES),
        key_metric=f"within_{ANGLES[0]:g}",
        key_hits=_near_pixels,
        draw=_draw,
        finish=unit,
        label_channels=3,
        problem=_problem,
        mirrored=_mirrored,
    )


def unit(outputs: Vectors) -> Vectors:
    """Vectors of length 1, computed in fp32; one of no length stays so."""
    return F.normalize(full_precision(outputs), dim=1)


def one_minus_cosine(outputs: Vectors, labels: Vectors) -> Float[Tensor, ""] | None:
    """Mean of 1 - cosine over the defined pixels. In [0, 2], whatever the vectors' lengths."""
    cosine = F.cosine_similarity(full_precision(outputs), labels, dim=1)
    return mean_where(1 - cosine, _defined(labels))


def _defined(labels: Vectors) -> Bool[Tensor, "batch height width"]:
    """Not by the sum of the components, which is 0 for many a normal."""
    return (labels != 0).any(1)


def _near_pixels(outputs: Vectors, labels: Vectors) -> tuple[Tensor, Tensor]:
    defined = _defined(labels)
    return ((angles_between(outputs, labels) < ANGLES[0]) & defined).sum(), defined.sum()


def _mirrored(labels: Vectors) -> Vectors:
    return labels * torch.tensor([-1.0, 1.0, 1.0], device=labels.device)[:, None, None]


def _problem(normals: np.ndarray) -> str | None:
    squares = np.einsum("hwc,hwc->hw", *[normals.astype(np.float32)] * 2)
    if not np.isfinite(squares).all():
        return "a normal that is NaN or infinite"
    wrong = (np.abs(squares - 1) > 2 * _LENGTH_TOLERANCE) & (squares > 0)
    if not wrong.any():
        return None
    length = float(np.sqrt(squares[wrong][0]))
    return f"{wrong.sum()} normals not of unit length, the first of length {length:.3g} (0 is undefined)"


def _draw(axes: "Axes", values: np.ndarray) -> None:
    """x, y and z as red, green and blue; undefined pixels are white."""
    colours = (values.transpose(1, 2, 0).astype(np.float64) + 1) / 2
    colours[(values == 0).all(0)] = 1
    axes.imshow(colours.clip(0, 1), interpolation="nearest")
    axes.set_xlabel("red: right, green: up, blue: to the camera", fontsize=6)
