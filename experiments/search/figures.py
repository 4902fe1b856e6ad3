"""Figures of a search, from `trials.parquet` alone: parallel coordinates, importance, learning curves, schedules.

What is drawn can be had as plain data (`axes_of`, `importance`, `ends`), for other ways to show it.
"""

import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.search.config import Dimension, SearchConfig
from experiments.search.importance import FEWEST, importances
from mtan_core.figures import COLOURS, LINES, saved

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

GREY = "#b0b0b0"
LINE = 64  # characters of a note below a figure


@dataclass(frozen=True)
class Axis:
    """An axis of parallel coordinates: places from 0 to 1 by trial (NaN: not searched there), and what is written at it."""

    name: str
    places: Mapping[int, float]
    ticks: Mapping[float, str]


@dataclass(frozen=True)
class Importance:
    """How much of the metric's variance each key explains (Hutter, Hoos, Leyton-Brown 2014); the shares sum to 1."""

    shares: Mapping[str, float]
    trials: int
    epoch: int
    left_out: tuple[str, ...]  # keys that only some of the trials have


def draw_figures(folder: Path, search: SearchConfig, table: "pd.DataFrame") -> list[Path]:
    """Draw what there is to draw of `trials.parquet` as PNG and SVG; returns the files."""
    drawn: dict[str, Callable[[Path], None]] = {}
    if table["metric"].notna().any():
        drawn["parallel"] = lambda path: parallel_coordinates(path, search, table)
        drawn["curves"] = lambda path: learning_curves(path, search, table)
        if search.scheduler.kind == "pbt":
            drawn["schedules"] = lambda path: schedules(path, search, table)
        else:
            drawn["importance"] = lambda path: importance_bars(path, search, table)
    paths = [folder / f"{name}{suffix}" for name in drawn for suffix in (".png", ".svg")]
    for path in paths:
        drawn[path.stem](path)
    return paths


def ends(table: "pd.DataFrame") -> "pd.DataFrame":
    """The last validated row of each trial, by trial; those that never came so far are left out."""
    known = table[table["metric"].notna()].sort_values(["trial", "epoch"])
    return known.groupby("trial").tail(1).set_index("trial")


def best_of(table: "pd.DataFrame", search: SearchConfig) -> int | None:
    """The best of the trials that trained to their end, or else of all; None where no metric is finite."""
    last = ends(table)
    last = last[np.isfinite(last["metric"])]
    finished = last[last["status"] == "finished"]["metric"]
    metrics = finished if len(finished) else last["metric"]
    if not len(metrics):
        return None
    return int(metrics.idxmax() if search.mode == "max" else metrics.idxmin())


def axes_of(search: SearchConfig, table: "pd.DataFrame") -> list[Axis]:
    """An axis for each key, as it was searched (logarithmic, listed), and the last for the metric."""
    last = ends(table)
    axes = [
        _axis(key, dimension, last[f"config.{key}"])
        for key, dimension in search.space.items()
        if f"config.{key}" in last
    ]
    metrics = last["metric"].replace([np.inf, -np.inf], np.nan)
    low, high = float(metrics.min()), float(metrics.max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    places = {trial: (value - low) / (high - low) for trial, value in _numbered(metrics)}
    return [
        *axes,
        Axis(search.metric, places, {share: f"{low + share * (high - low):.3g}" for share in (0.0, 0.5, 1.0)}),
    ]


def _axis(key: str, dimension: Dimension, values: "pd.Series[Any]") -> Axis:
    listed = dimension.listed()
    if listed is not None and (dimension.choice is not None or len(listed) <= 8):
        steps = max(1, len(listed) - 1)
        ticks = {place / steps: str(value) for place, value in enumerate(listed)}
        by_value = {value: place for place, value in ticks.items()}
        return Axis(
            key, {trial: by_value.get(_text(value, listed), math.nan) for trial, value in _numbered(values)}, ticks
        )
    low, high = (float(end) for end in (dimension.ends()[0], dimension.ends()[-1]))
    scale: Callable[[float], float] = math.log if dimension.log_uniform else float
    first, span = scale(low), scale(high) - scale(low)
    places = {trial: (scale(float(value)) - first) / span for trial, value in _numbered(values) if value == value}
    back: Callable[[float], float] = math.exp if dimension.log_uniform else float
    return Axis(key, places, {share: f"{back(first + share * span):.3g}" for share in (0.0, 0.5, 1.0)})


def _numbered(values: "pd.Series[Any]") -> list[tuple[int, Any]]:
    """Values by trial."""
    return list(zip(map(int, values.index.tolist()), values.tolist(), strict=True))


def _text(value: Any, listed: list[Any]) -> str:
    """A value of the table as its list has it: whole numbers become fractions where another trial has none."""
    return next((str(each) for each in listed if each == value or str(each) == str(value)), "")


def parallel_coordinates(path: Path, search: SearchConfig, table: "pd.DataFrame") -> None:
    """A line for each trial through the values it tried to the metric it came to, light where that is good; stopped ones are
    thin. A line passes by the keys that its trial has not got.
    """
    axes_data, last, best = axes_of(search, table), ends(table), best_of(table, search)
    with saved(path, 2.2 + 1.5 * len(axes_data), 4) as figure:
        from matplotlib import colormaps

        axes = figure.add_subplot()
        colours, metric = colormaps["viridis"], axes_data[-1].places
        for trial, status in _numbered(last["status"]):
            known = [(place, axis.places[trial]) for place, axis in enumerate(axes_data) if _has(axis, trial)]
            good, whole = metric.get(trial, math.nan), status == "finished"
            good = good if search.mode == "max" else 1 - good
            axes.plot(
                *zip(*known, strict=True), color=GREY if math.isnan(good) else colours(0.95 * good),
                linewidth=3.0 if trial == best else 1.4 if whole else 0.8, linestyle="-" if whole else "--",
                marker="o", markersize=3, zorder=3 if trial == best else 2,
            )  # fmt: skip
        for place, axis in enumerate(axes_data):
            axes.axvline(place, color="#555555", linewidth=0.8, zorder=1)
            for height, label in axis.ticks.items():
                axes.annotate(label, (place, height), (4, 0), textcoords="offset points", fontsize=7, va="center",
                              bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8}, zorder=4)  # fmt: skip
        axes.set_xticks(range(len(axes_data)), [axis.name.replace(".", ".\n") for axis in axes_data])
        axes.set(ylim=(-0.06, 1.06), yticks=[], xlim=(-0.2, len(axes_data) - 0.55))
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_title(f"{len(last)} trials: their values and {search.metric}" + _marked(best, last))


def _has(axis: Axis, trial: int) -> bool:
    return not math.isnan(axis.places.get(trial, math.nan))


def _marked(best: int | None, last: "pd.DataFrame") -> str:
    thin = " (dashed: stopped or failed)" if (last["status"] != "finished").any() else ""
    return f"{thin}; thick: the best, trial {best}" if best is not None else thin


def importance(search: SearchConfig, table: "pd.DataFrame") -> Importance | str:
    """Importance by fANOVA, as Optuna has it, after the latest epoch that at least half of the trials have reached; else why not."""
    if search.scheduler.kind == "pbt":
        return "no importance: values change while training goes on"
    known = table[np.isfinite(table["metric"].astype(float))]
    counts = known.groupby("epoch")["trial"].nunique()
    wanted = max(FEWEST, math.ceil(table["trial"].nunique() / 2))
    if not (counts >= wanted).any():
        return f"too few trials for importance: expected {wanted}, found {int(counts.max()) if len(counts) else 0}"
    epoch = int(counts.index[counts >= wanted].max())
    rows = known[known["epoch"] == epoch]
    everywhere = [key for key in search.space if f"config.{key}" in rows and rows[f"config.{key}"].notna().all()]
    varied = [key for key in everywhere if rows[f"config.{key}"].astype(str).nunique() > 1]
    if not varied or rows["metric"].nunique() == 1:
        return f"no importance: all {len(rows)} trials are alike after epoch {epoch}"
    left_out = tuple(key for key in search.space if key not in everywhere)
    points = rows[[f"config.{key}" for key in varied]].rename(columns=lambda name: name.removeprefix("config."))
    shares = importances(search, points.to_dict("records"), rows["metric"].tolist())  # type: ignore[arg-type]
    return Importance(shares, len(rows), epoch, left_out)


def importance_bars(path: Path, search: SearchConfig, table: "pd.DataFrame") -> None:
    """A bar for each key, or a sentence where there is nothing to tell."""
    found = importance(search, table)
    shares = {} if isinstance(found, str) else dict(sorted(found.shares.items(), key=lambda item: item[1]))
    with saved(path, 6.5, 1.4 + 0.35 * max(1, len(shares))) as figure:
        axes = figure.add_subplot()
        if isinstance(found, str):
            axes.text(0.5, 0.5, found, ha="center", va="center", transform=axes.transAxes)
            axes.axis("off")
            return
        bars = axes.barh(list(shares), [100 * share for share in shares.values()], color=COLOURS[0], height=0.65)
        axes.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=8)
        axes.grid(visible=False, axis="y")
        lines = ["share of the variance explained (%)"]
        if found.left_out:  # as a key that depends on another one's value is
            lines += textwrap.wrap(f"without those that not all trials have: {', '.join(found.left_out)}", LINE)
        axes.set(xlim=(0, 112), xlabel="\n".join(lines))
        axes.set_title(f"What {search.metric} depends on (fANOVA, {found.trials} trials after epoch {found.epoch})")


def learning_curves(path: Path, search: SearchConfig, table: "pd.DataFrame") -> None:
    """The metric over the epochs: the best trial thick, other finished ones coloured, stopped ones grey with a cross."""
    best, statuses = best_of(table, search), table.groupby("trial")["status"].first()
    with saved(path, 8, 4.4) as figure:
        axes = figure.add_subplot()
        for trial, rows in _by_trial(table):
            epochs, metric = rows["epoch"].to_numpy(dtype=float), rows["metric"].to_numpy(dtype=float)
            whole = statuses[trial] == "finished"
            axes.plot(
                epochs, metric, color=_colour(trial) if whole else GREY, linestyle=_line(trial) if whole else "-",
                linewidth=2.8 if trial == best else 1.2, marker="o" if len(rows) == 1 and whole else "",
                zorder=4 if trial == best else 3 if whole else 2,
                label=f"trial {trial}, the best" if trial == best else f"trial {trial}" if whole else None,
            )  # fmt: skip
            if not whole:
                mark, colour = ("x", "#666666") if statuses[trial] == "stopped" else ("X", COLOURS[1])
                axes.plot(epochs[-1:], metric[-1:], marker=mark, color=colour, markersize=5, zorder=3)
        _over_epochs(axes, search.metric, table)
        told = {status: int((statuses == status).sum()) for status in ("finished", "stopped", "failed")}
        axes.set_title(
            ", ".join(f"{count} {status}" for status, count in told.items() if count)
            + (" (x: stopped there)" if told["stopped"] else "")
        )
        if told["finished"] <= 12:
            figure.legend(loc="outside right upper", frameon=False, fontsize=8, handlelength=3)


def schedules(path: Path, search: SearchConfig, table: "pd.DataFrame") -> None:
    """Population based training: each key's values over the epochs, a line for each trial; the best one's is thick."""
    best, keys = best_of(table, search), list(search.space)
    with saved(path, 8, 0.8 + 2.1 * len(keys)) as figure:
        for place, key in enumerate(keys, start=1):
            axes = figure.add_subplot(len(keys), 1, place)
            for trial, rows in _by_trial(table):
                axes.step(
                    rows["epoch"], rows[f"config.{key}"], where="mid", color=_colour(trial), linestyle=_line(trial),
                    linewidth=2.8 if trial == best else 1.2, zorder=3 if trial == best else 2,
                    label=f"trial {trial}" + (", the best" if trial == best else ""),
                )  # fmt: skip
            if search.space[key].log_uniform:
                axes.set_yscale("log")
            _over_epochs(axes, key, table)
        if table["trial"].nunique() <= 12:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8, handlelength=3)


def _over_epochs(axes: "Axes", name: str, table: "pd.DataFrame") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel=name, xlim=(table["epoch"].min() - 0.25, table["epoch"].max() + 0.25))


def _by_trial(table: "pd.DataFrame") -> list[tuple[int, "pd.DataFrame"]]:
    """The validated epochs of each trial, in order."""
    known = table[table["metric"].notna()].sort_values("epoch")
    return [(int(trial), known[known["trial"] == trial]) for trial in sorted(known["trial"].unique())]


def _colour(trial: int) -> str:
    return COLOURS[trial % len(COLOURS)]


def _line(trial: int) -> str:
    return LINES[trial // len(COLOURS) % len(LINES)]
