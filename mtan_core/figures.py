"""A figure on a canvas of its own, written as a PNG or SVG that is whole or not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtan_core.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, made for colour-blind readers; with the line styles it tells ten tasks and more apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":")

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "mtan",  # the same names within a file every time
}


@contextmanager
def saved(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """A figure of this size in inches, written to `path`, atomically, when the block ends: as SVG where its name says so, else PNG.

    It stands on its own canvas: no window, no global state, whatever backend the caller uses elsewhere.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        kind: dict[str, Any] = {"format": "png", "dpi": 150, "metadata": {"Software": None}}
        if path.suffix == ".svg":
            kind = {"format": "svg", "metadata": {"Date": None, "Creator": None}}
        with replacing(path) as temporary:
            figure.savefig(temporary, **kind)
