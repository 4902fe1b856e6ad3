"""Curves of a training over its epochs, a line for each task."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mtan_core.figures import COLOURS, LINES, saved

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Panel(NamedTuple):
    """What is said above the curves of a column; shares are drawn in percent."""

    title: str
    share: bool = False


ACCURACIES = {
    "loss": Panel("training loss"),
    "weight": Panel("weight of the loss"),
    "accuracy": Panel("training accuracy (%)", share=True),
    "val_accuracy": Panel("validation accuracy (%)", share=True),
}


def training_curves(
    path: Path,
    metrics: "pd.DataFrame",
    title: str = "Training",
    task: str = "domain",
    panels: Mapping[str, Panel] = ACCURACIES,
) -> None:
    """Draw columns of a run's metrics over the epochs, a panel for each.

    `metrics` has a row per epoch and task with the columns epoch, `task` and those of `panels` (null where it was not
    measured; a panel without any value is left out). Raises ValueError for a missing column.
    """
    absent = [column for column in ("epoch", task, *panels) if column not in metrics]
    if absent:
        raise ValueError(
            f"training_curves: expected a column '{absent[0]}', found {', '.join(map(str, metrics.columns))}."
        )
    shown = [column for column in panels if metrics[column].notna().any()]
    if not shown:
        raise ValueError("training_curves: expected at least one measured value, found none.")
    tasks = sorted(metrics[task].unique())
    rows = (len(shown) + 1) // 2
    with saved(path, 9, 0.9 + 2.7 * rows + 0.2 * (len(tasks) // 5)) as figure:
        for place, column in enumerate(shown, start=1):
            axes = figure.add_subplot(rows, min(2, len(shown)), place)
            own = {name: metrics[metrics[task] == name].sort_values("epoch").dropna(subset=[column]) for name in tasks}
            _curves(axes, own, column, panels[column].share)
            _frame(axes, metrics["epoch"], panels[column])
        figure.suptitle(title)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, handlelength=3)


def _curves(axes: "Axes", rows: Mapping[str, "pd.DataFrame"], column: str, share: bool) -> None:
    """One line per task; a task's colour and line style are the same in every panel."""
    for place, (name, own) in enumerate(rows.items()):
        axes.plot(
            own["epoch"].to_numpy(),
            (100 if share else 1) * own[column].to_numpy(dtype=float),
            color=COLOURS[place % len(COLOURS)],
            linestyle=LINES[place // len(COLOURS) % len(LINES)],
            linewidth=1.5,
            marker="o" if len(own) < 3 else "",
            label=name,
        )


def _frame(axes: "Axes", epochs: "pd.Series[int]", panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    first, last = epochs.min(), epochs.max()
    margin = max(0.25, 0.02 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(title=panel.title, xlabel="epoch")
    if panel.share:
        axes.set_ylim(0, 102)
    elif axes.dataLim.y0 >= 0:  # some weightings have negative weights
        axes.set_ylim(bottom=0)
