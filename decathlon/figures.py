"""Figures of a run, from plain data: accuracies, and masks beside the images they were computed from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtan_core.figures import COLOURS, saved

Mask = NDArray[np.floating[Any]]  # (H, W), values in [0, 1]
MaskRow = tuple[str, NDArray[np.uint8], Sequence[tuple[str, Mask]]]


def accuracy_bars(path: Path, domains: Sequence[str], accuracy: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Horizontal bars of accuracy (a fraction) for each domain, one bar per series such as "val", "test", "chance".

    A domain that a series lacks has no bar there. Raises ValueError where there is nothing to draw.
    """
    if not domains or not accuracy:
        raise ValueError("accuracy_bars: expected at least one domain and one series, found none.")
    thickness = 0.8 / len(accuracy)
    with saved(path, 7, 1.5 + len(domains) * (0.16 * len(accuracy) + 0.12)) as figure:
        axes = figure.add_subplot()
        for place, (series, values) in enumerate(accuracy.items()):
            rows = [row for row, name in enumerate(domains) if name in values]
            percent = [100 * values[domains[row]] for row in rows]
            heights = [row + (place - (len(accuracy) - 1) / 2) * thickness for row in rows]
            colour = "#b0b0b0" if series == "chance" else COLOURS[place % len(COLOURS)]
            bars = axes.barh(heights, percent, height=0.92 * thickness, color=colour, label=series)
            axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=7)
        axes.set_yticks(range(len(domains)), list(domains))
        axes.set_ylim(len(domains) - 0.5, -0.5)  # the first domain on top
        axes.grid(visible=False, axis="y")
        axes.set(xlim=(0, 107), xticks=range(0, 101, 20), xlabel="accuracy (%)", title=title)
        figure.legend(loc="outside lower center", ncols=len(accuracy), frameon=False)


def mask_grid(path: Path, rows: Sequence[MaskRow], title: str = "") -> None:
    """Images, and beside each of them the masks that domains put on it.

    A row is ``(title, image, [(label, mask), ...])``: image (H, W, 3) uint8, mask (H', W') in [0, 1], for example the mean over
    the channels of a stage's mask. All masks share one colour scale, from their smallest to their largest value, as trained
    masks often differ by little. A row may have fewer masks than another. Raises ValueError for no row or no mask.
    """
    masks = [mask for _, _, labelled in rows for _, mask in labelled]
    if not masks:
        raise ValueError("mask_grid: expected at least one row with a mask, found none.")
    low, high = min(float(mask.min()) for mask in masks), max(float(mask.max()) for mask in masks)
    columns = 1 + max(len(labelled) for _, _, labelled in rows)
    with saved(path, 1.05 * columns + 0.9, 1.3 * len(rows) + (0.6 if title else 0.2)) as figure:
        cells = figure.subplots(len(rows), columns, squeeze=False)
        for cell in cells.flat:
            cell.axis("off")
        for line, (name, image, labelled) in zip(cells, rows, strict=True):
            line[0].imshow(image)
            line[0].set_title(name, fontsize=7, fontweight="bold")
            for cell, (label, mask) in zip(line[1:], labelled, strict=False):
                drawn = cell.imshow(mask, cmap="viridis", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
                cell.set_title(label, fontsize=7)
        bar = figure.colorbar(drawn, ax=cells, fraction=0.02, pad=0.01)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("mask (0: nothing passes, 1: all passes)", fontsize=7)
        if title:
            figure.suptitle(title)
