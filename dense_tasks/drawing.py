"""Figures of dense predictions: every image beside what is predicted for it, and beside its labels where they are given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dense_tasks.tasks import Task
from mtan_core.figures import saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _CAPTION = 2.4, 0.7  # inches of a picture, and of the legend, bar or words below it


@dataclass(frozen=True)
class Drawn:
    """One image (H, W, 3) in [0, 1] or uint8, final predictions (channels, H, W) by task, and labels by task where known:
    (H, W) classes, else (channels, H, W)."""

    title: str
    image: np.ndarray
    predictions: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)


def draw_predictions(path: Path, rows: Sequence[Drawn], tasks: Mapping[str, Task], title: str = "") -> None:
    """Write a PNG: per image a line of its predictions, and one of its labels if it has any.

    Raises ValueError where there is nothing to draw.
    """
    if not rows or not tasks:
        raise ValueError("draw_predictions: expected at least one image and one task, found none.")
    lines = [
        (row, kind, values)
        for row in rows
        for kind, values in (("predicted", row.predictions), ("label", row.labels))
        if values
    ]
    height, width = rows[0].image.shape[:2]
    tall = len(lines) * (_WIDTH * height / width + _CAPTION) + (0.3 if title else 0.1)
    with saved(path, _WIDTH * (1 + len(tasks)), tall) as figure:
        cells = figure.subplots(len(lines), 1 + len(tasks), squeeze=False)
        for line, (row, kind, values) in zip(cells, lines, strict=True):
            _line(line, row, kind, values, tasks)
        if title:
            figure.suptitle(title, fontsize=9)


def draw_masks(path: Path, title: str, image: np.ndarray, masks: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write a PNG: the image, and by task (a line each) the mean over channels of its mask at every stage (H, W), in [0, 1].

    Raises ValueError where there is nothing to draw.
    """
    if not masks:
        raise ValueError("draw_masks: expected the masks of at least one task, found none.")
    stages = len(next(iter(masks.values())))
    height, width = image.shape[:2]
    side = _WIDTH / 2
    with saved(path, side * (1 + stages) + 1, len(masks) * (side * height / width + 0.3) + 0.3) as figure:
        cells = figure.subplots(len(masks), 1 + stages, squeeze=False)
        for line, (task, own) in zip(cells, masks.items(), strict=True):
            for cell in line:
                _bare(cell)
            line[0].imshow(image)
            line[0].set_title(task, fontsize=7, fontweight="bold")
            for number, (cell, mask) in enumerate(zip(line[1:], own, strict=True)):
                drawn = cell.imshow(mask, vmin=0, vmax=1, cmap="viridis")
                cell.set_title(f"stage {number}", fontsize=6)
        figure.colorbar(drawn, ax=cells, shrink=0.6, label="mask (0: nothing passes, 1: all)")
        figure.suptitle(title, fontsize=9)


def _line(
    cells: "np.ndarray", row: Drawn, kind: str, values: Mapping[str, np.ndarray], tasks: Mapping[str, Task]
) -> None:
    for cell in cells:
        _bare(cell)
    cells[0].imshow(row.image)
    cells[0].set_title(row.title, fontsize=7, fontweight="bold")
    for cell, (name, task) in zip(cells[1:], tasks.items(), strict=True):
        if name in values:
            task.draw(cell, np.asarray(values[name]))
            cell.set_title(f"{name}, {kind}", fontsize=7)


def _bare(axes: "Axes") -> None:
    """A picture has neither ticks nor grid nor frame; what a task writes below it stays."""
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
