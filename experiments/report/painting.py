"""A dense task's predictions and labels as pixels: what the task itself draws, without the axes and words around it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_tasks.tasks import Task
from experiments.report import parts, tiles
from experiments.report.parts import Part

Limits = tuple[float, float]


@dataclass(frozen=True)
class Painted:
    """Pixels, and what their colours mean: names (classes), a scale between limits, or words."""

    pixels: tiles.Picture
    limits: Limits | None
    colours: str
    names: Mapping[str, str]
    words: str

    def legend(self, task: str, other: "Painted") -> Part:
        """What the colours of this and another picture of the task mean."""
        names = {**other.names, **self.names}
        if names:
            return parts.legend([(name, tiles.swatch(colour)) for name, colour in sorted(names.items())])
        if self.limits is not None:
            low, high = self.limits
            return parts.legend(
                [(f"{task} from {low:.2f} to {high:.2f} {self.words}".strip(), tiles.ramp(self.colours))]
            )
        return parts.note(f"{task}: {self.words}." if self.words else f"{task}.")


def paint(task: Task, values: NDArray[Any], limits: Limits | None = None) -> Painted:
    """A prediction (channels, H, W) or label as the task draws it; `limits` are those of a scale, where it has one.

    The task draws on axes that nobody looks at: taken is the image on them, with its colours, and the words beside it.
    """
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    task.draw(axes, np.asarray(values))
    (image,) = axes.images
    array = image.get_array()
    assert array is not None
    scaled = array.ndim == 2
    if scaled and limits is not None:
        image.set_clim(*limits)
    pixels: tiles.Picture = np.asarray(image.to_rgba(array, bytes=True), np.uint8)
    legend = axes.get_legend()
    handles = zip(legend.get_texts(), legend.get_patches(), strict=True) if legend else ()
    names = {text.get_text(): to_hex(patch.get_facecolor()) for text, patch in handles}
    known = scaled and bool(np.ma.count(array))
    low, high = map(float, image.get_clim()) if known else (0.0, 1.0)
    found = (low, high) if known else None
    return Painted(pixels, found, image.get_cmap().name, names, axes.get_xlabel())
