"""What masks select, on the page: how much of each stage passes, how far domains or tasks share it, channel by channel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlon.masks import MaskUse
from experiments.report import charts, parts, tiles
from experiments.report.parts import Part


def mask_parts(use: MaskUse, what: str) -> list[Part]:
    """Use, spread and overlap of the masks of domains or tasks (`what`), and every channel's mean mask."""
    names = use.domains
    stages = [f"stage {number}" for number in range(len(use.means))]
    spreads = np.stack(use.spreads, axis=1)
    overlap = np.mean(use.correlations, axis=0)
    named = [f"{place} {name}" for place, name in enumerate(names, start=1)]
    numbers = [str(place) for place in range(1, len(names) + 1)]
    shown = [
        _heat(f"Mean mask by {what} and stage", names, stages, use.use, float(use.use.min()), float(use.use.max())),
        _heat(f"Spread of the masks by {what} and stage", names, stages, spreads, 0, float(spreads.max()) or 1.0),
        _heat(f"Overlap of {what}s: correlation of the mean masks per channel, mean over stages; 0: unrelated, 1: the same channels",
              named, numbers, overlap, -1, 1),
    ]  # fmt: skip
    widest = ("figures" if len(stages) < 6 else "wide", "wide")
    return [parts.figures(shown[:2], widest[0]), parts.figures(shown[2:], widest[1]), *_channels(use, what)]


def _heat(told: str, rows: Sequence[str], columns: Sequence[str], values: Any, low: float, high: float) -> Part:
    return parts.chart(charts.heat(told, rows, columns, values, low, high), f"{told}.")


def _channels(use: MaskUse, what: str) -> list[Part]:
    low, high = (float(edge([edge(means) for means in use.means])) for edge in (np.min, np.max))
    order = ", ".join(use.domains)
    pictures = [
        parts.picture(
            tiles.data_uri(tiles.coloured(means, low, high)),
            f"Stage {stage}: mean mask of each of {means.shape[1]} channels, a row for each {what}: {order}",
            f"Stage {stage}, {means.shape[1]} channels",
            f"height: {max(2, 0.55 * len(means)):.1f}rem",
        )
        for stage, means in enumerate(use.means)
    ]
    told = f"Mean mask of every channel, a row for each {what} from top to bottom: {order}."
    return [parts.note(told), parts.figures(pictures, "strips"), scale("mean mask", low, high)]


def scale(name: str, low: float, high: float, colours: str = "viridis") -> Part:
    """What the colours of pictures mean."""
    return parts.legend([(f"{name} from {low:.2f} to {high:.2f}", tiles.ramp(colours))])


def example_rows(rows: Sequence[tuple[str, NDArray[np.uint8], Mapping[str, NDArray[Any]]]], what: str) -> list[Part]:
    """Images, each with the masks (H, W) that are laid on it, by name; all in one scale of colours."""
    masks = [mask for _, _, own in rows for mask in own.values()]
    low, high = min(float(mask.min()) for mask in masks), max(float(mask.max()) for mask in masks)
    shown: list[Part] = []
    for title, image, own in rows:
        first = parts.picture(tiles.data_uri(image, 144), f"Validation image of {title}", title)
        others = [
            parts.picture(tiles.data_uri(tiles.coloured(mask, low, high)), f"Mask of {name} on it", name)
            for name, mask in own.items()
        ]
        shown.append(parts.figures([first, *others], "tiles"))
    return [parts.note(what), *shown, scale("mask", low, high)]
