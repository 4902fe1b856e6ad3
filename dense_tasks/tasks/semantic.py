"""Semantic segmentation: the class of every pixel."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dense_tasks.datasets import Dataset
from dense_tasks.metrics import Measure, SemanticMetrics
from dense_tasks.tasks.task import Task, full_precision, mean_where

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def task(dataset: Dataset) -> Task:
    """Logits of the data set's classes; a label of -1 is undefined."""
    classes = len(dataset.classes)
    return Task(
        name="semantic",
        channels=classes,
        folder="label",
        loss=cross_entropy,
        metrics=lambda: SemanticMetrics(classes),
        measures=(Measure("miou", True), Measure("pixel_accuracy", True)),
        key_metric="pixel_accuracy",
        key_hits=_right_pixels,
        draw=lambda axes, values: _draw(axes, values, dataset),
        dtype=torch.int64,
        undefined=-1,
        problem=lambda labels: _problem(labels, classes),
    )


def cross_entropy(
    outputs: Float[Tensor, "batch classes height width"], labels: Int[Tensor, "batch height width"]
) -> Float[Tensor, ""] | None:
    """Mean cross-entropy over the defined pixels, in nats."""
    losses = F.cross_entropy(full_precision(outputs), labels, ignore_index=-1, reduction="none")
    return mean_where(losses, labels >= 0)


def _right_pixels(
    outputs: Float[Tensor, "batch classes height width"], labels: Int[Tensor, "batch height width"]
) -> tuple[Tensor, Tensor]:
    return (outputs.argmax(1) == labels).sum(), (labels >= 0).sum()


def _problem(labels: np.ndarray, classes: int) -> str | None:
    low, high = labels.min(), labels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return "a label that is NaN or infinite"
    if labels.dtype.kind == "f" and (labels != np.rint(labels)).any():
        return "a label that is not a whole number"
    if low < -1:
        return f"a label of {int(low)} (-1 is undefined)"
    return f"a label of {int(high)} where the {classes} classes end at {classes - 1}" if high >= classes else None


def _draw(axes: "Axes", values: np.ndarray, dataset: Dataset) -> None:
    """The classes in the data set's colours, with a legend of those that occur; undefined pixels are white."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    classes = values.argmax(0) if values.ndim == 3 else values
    colours = np.array([*(to_rgb(colour) for colour in dataset.colours), (1, 1, 1)])
    axes.imshow(colours[classes], interpolation="nearest")
    there = [place for place in np.unique(classes) if place >= 0]
    handles = [Patch(color=dataset.colours[place], label=dataset.classes[place]) for place in there]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, fontsize=6, frameon=False,
        handlelength=1, handleheight=1, columnspacing=1, borderpad=0,
    )  # fmt: skip
