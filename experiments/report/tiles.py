"""Small pictures as data URIs, without axes or ground, so that they stand on a light page as on a dark one."""

import base64
import io
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3 or 4)


def data_uri(pixels: Picture, most: int | None = None) -> str:
    """A PNG of these pixels; with `most`, made no wider and taller than that."""
    from PIL import Image

    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if most is not None:
        image.thumbnail((most, most))
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def coloured(values: NDArray[Any], low: float, high: float, colours: str = "viridis") -> Picture:
    """Values (H, W) in matplotlib's colours of that name, from `low` to `high`; what is masked is transparent."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    painted: Picture = colormaps[colours](Normalize(low, high if high > low else low + 1e-6)(values), bytes=True)
    return painted


def ramp(colours: str = "viridis") -> Markup:
    """The colours from the lowest value to the highest, for a legend."""
    source = data_uri(coloured(np.linspace(0, 1, 64)[None], 0, 1, colours))
    return Markup('<img class="ramp" alt="" src="{}">').format(source)


def swatch(colour: str) -> Markup:
    """A square of one colour, for a legend."""
    return Markup(
        f'<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" fill="{escape(colour)}"/></svg>'
    )
