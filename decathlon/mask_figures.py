"""Figures of what masks select, from plain data: matrices over domains, and features beside the masks that lie on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtan_core.figures import saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Maps = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any]]  # label, features, mask, features that pass


class FeatureMaps(NamedTuple):
    """What one stage makes of one image: each of its maps is (H, W)."""

    name: str
    image: NDArray[np.uint8]
    stage: str
    maps: Sequence[Maps]


class Heat(NamedTuple):
    """A matrix to be drawn with its numbers: between `low` and `high`, in a diverging scale where `low` is negative."""

    title: str
    values: NDArray[Any]
    columns: Sequence[str]
    low: float
    high: float
    digits: int = 2


def heat_maps(
    path: Path, rows: Sequence[str], heats: Sequence[Heat], strips: Sequence[tuple[str, NDArray[Any]]], title: str = ""
) -> None:
    """Matrices side by side, with their numbers, whose rows are the same; below them `strips`, wide ones without numbers.

    All strips share one colour scale. Raises ValueError where there is nothing to draw.
    """
    if not heats or not rows:
        raise ValueError("heat_maps: expected at least one matrix with a row, found none.")
    cell = 0.36
    widths = [max(1.6, cell * len(heat.columns)) for heat in heats]
    heights = [max(1.4, cell * len(rows)) + 0.9, *[0.09 * len(rows) + 0.35] * len(strips)]
    with saved(path, sum(widths) + 0.6 * len(heats) + 1.2, sum(heights) + 0.7) as figure:
        upper, *lower = figure.subfigures(1 + len(strips), 1, height_ratios=heights, squeeze=False)[:, 0]
        cells = upper.subplots(1, len(heats), width_ratios=widths, squeeze=False)[0]
        for place, (axes, heat) in enumerate(zip(cells, heats, strict=True)):
            _heat(axes, heat, rows if place == 0 else [""] * len(rows))
        low, high = (float(edge([edge(values) for _, values in strips], initial=0.5)) for edge in (np.min, np.max))
        for part, (label, values) in zip(lower, strips, strict=True):
            axes = part.subplots()
            drawn = axes.imshow(values, cmap="viridis", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
            axes.set(yticks=[], title=label)
            axes.grid(visible=False)
            part.colorbar(drawn, ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=6)
        if title:
            figure.suptitle(title)


def _heat(axes: "Axes", heat: Heat, rows: Sequence[str]) -> None:
    colours = "RdBu" if heat.low < 0 else "viridis"
    axes.imshow(heat.values, cmap=colours, vmin=heat.low, vmax=heat.high, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(heat.columns)), list(heat.columns), rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_title(heat.title, fontsize=9)
    middle, reach = (heat.low + heat.high) / 2, (heat.high - heat.low) / 2
    for (row, column), value in np.ndenumerate(heat.values):
        far = abs(value - middle) > 0.6 * reach if heat.low < 0 else value < middle
        text = f"{value:.{heat.digits}f}".replace("0.", ".", 1)
        axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if far else "black")


def feature_grid(path: Path, rows: Sequence[FeatureMaps], title: str = "") -> None:
    """Rows of an image, then for each of its maps the features of a stage, the mask on them, and what passes.

    Features and what passes share a scale; all masks share one, from their smallest to their largest value. Raises
    ValueError for no row.
    """
    if not rows:
        raise ValueError("feature_grid: expected at least one row, found none.")
    masks = [mask for row in rows for _, _, mask, _ in row.maps]
    low, high = min(float(mask.min()) for mask in masks), max(float(mask.max()) for mask in masks)
    columns = 1 + 3 * max(len(row.maps) for row in rows)
    with saved(path, 1.05 * columns + 0.9, 1.25 * len(rows) + (0.6 if title else 0.2)) as figure:
        cells = figure.subplots(len(rows), columns, squeeze=False)
        for cell in cells.flat:
            cell.axis("off")
        for line, row in zip(cells, rows, strict=True):
            line[0].imshow(row.image)
            line[0].set_title(f"{row.name[-16:]}\n{row.stage}", fontsize=6, fontweight="bold")
            for place, maps in enumerate(row.maps):
                _triple(line[1 + 3 * place : 4 + 3 * place], maps, low, max(high, low + 1e-6))
        bar = figure.colorbar(cells[0, 2].images[0], ax=cells, fraction=0.02, pad=0.01)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("mask (0: nothing passes, 1: all passes)", fontsize=7)
        if title:
            figure.suptitle(title)


def _triple(cells: Sequence["Axes"], maps: Maps, low: float, high: float) -> None:
    """Features, mask, and what passes, in three cells."""
    label, features, mask, passed = maps
    span = float(min(features.min(), passed.min())), float(max(features.max(), passed.max()))
    shown = (
        ("features", features, "gray", span),
        ("mask", mask, "viridis", (low, high)),
        ("features x mask", passed, "gray", span),
    )
    for cell, (kind, values, colours, (least, most)) in zip(cells, shown, strict=True):
        cell.imshow(values, cmap=colours, interpolation="nearest", vmin=least, vmax=most)
        cell.set_title(f"{label}\n{kind}", fontsize=6)
