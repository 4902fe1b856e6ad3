"""A search over configurations on the page: its trials as a table, their curves, and where in the space they lie."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.compare.rendering import NONE, Table
from experiments.report import charts, parts
from experiments.report.charts import Axis, Pen, Strand
from experiments.report.parts import Part
from experiments.search.config import KIND, SearchConfig
from experiments.search.importance import importances
from mtan_core.config import read_toml
from mtan_core.errors import UserError

PENS = {
    "finished": Pen("var(--c0)", 1.4), "stopped": Pen("var(--soft)", 0.8, "4 3"), "failed": Pen("var(--c3)", 1.1, "1.5 2.5"),
}  # fmt: skip
BEST = Pen("var(--c1)", 2.6)


@dataclass(frozen=True)
class Trial:
    """A trial as `trials.parquet` has it: its epochs that were measured, in order, each with the metric."""

    number: int
    status: str
    error: str | None
    seconds: float | None
    point: dict[str, Any]
    curve: list[tuple[float, float]]

    @property
    def metric(self) -> float | None:
        return self.curve[-1][1] if self.curve else None


def is_search(path: Path) -> bool:
    return (path / "search.json").is_file()


def search_parts(folder: Path) -> list[Part]:
    """All parts of a search's section. Raises UserError for one without results."""
    search = KIND.parse(read_toml(folder / "search.toml"), str(folder / "search.toml"))
    trials = read_trials(folder)
    best = best_trial(trials, search.mode)
    counts = Counter(trial.status for trial in trials)
    shown = [
        parts.facts({
            "folder": folder, "task": search.task, "begins from": search.config or search.preset or "the task's preset",
            "sampler, scheduler": f"{search.sampler}, {search.scheduler.kind}", "metric": f"{search.metric} ({search.mode})",
            "trials": ", ".join(f"{count} {status}" for status, count in counts.items()), "seed": search.seed,
            "best": None if best is None else f"trial {best.number}: {best.metric:.4g}",
        }),
        parts.code("What was searched", (folder / "search.toml").read_text(encoding="utf-8")),
    ]  # fmt: skip
    configurations = [folder / name for name in ("best.toml", "best_schedule.toml") if (folder / name).is_file()]
    shown += [
        parts.code("Configuration of the best trial", file.read_text(encoding="utf-8")) for file in configurations
    ]
    shown += [parts.heading("Trials"), parts.table(_table(trials))]
    return [*shown, *_curves(search, trials, best), *_coordinates(search, trials, best), *_importance(search, trials)]


def read_trials(folder: Path) -> list[Trial]:
    """The trials of a search. Raises UserError where none is written yet."""
    path = folder / "trials.parquet"
    if not path.is_file():
        raise UserError(f"Expected a finished search, found one without {path.name}: {folder} (go on with `resume`).")
    from pyarrow import parquet

    rows: dict[int, list[dict[str, Any]]] = {}
    for row in parquet.read_table(path).to_pylist():
        rows.setdefault(row["trial"], []).append(row)
    return [_trial(number, own) for number, own in sorted(rows.items())]


def _trial(number: int, rows: Sequence[dict[str, Any]]) -> Trial:
    first = rows[0]
    measured = [
        (float(row["epoch"]), float(row["metric"])) for row in rows if row["epoch"] and row["metric"] is not None
    ]
    point = {key.removeprefix("config."): value for key, value in rows[-1].items() if key.startswith("config.")}
    return Trial(number, first["status"], first["error"], first["seconds"], point, sorted(measured))


def best_trial(trials: Sequence[Trial], mode: str) -> Trial | None:
    """The finished trial with the best metric after its last epoch."""
    finished = [trial for trial in trials if trial.status == "finished" and math.isfinite(trial.metric or math.nan)]
    sign = 1 if mode == "max" else -1
    return max(finished, key=lambda trial: sign * (trial.metric or 0.0), default=None)


def _table(trials: Sequence[Trial]) -> Table:
    keys = list(trials[0].point)
    columns = ["trial", "status", "metric", "epochs", "seconds", *keys, "error"]
    rows = [
        [str(trial.number), trial.status, _cell(trial.metric), _cell(trial.curve[-1][0] if trial.curve else None),
         _cell(trial.seconds), *(_cell(trial.point[key]) for key in keys), trial.error or NONE]
        for trial in trials
    ]  # fmt: skip
    return Table("All trials, with the metric after each one's last epoch", columns, rows)


def _cell(value: Any) -> str:
    return NONE if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _pen(trial: Trial, best: Trial | None) -> Pen:
    return BEST if trial is best else PENS.get(trial.status, PENS["stopped"])


def _curves(search: SearchConfig, trials: Sequence[Trial], best: Trial | None) -> list[Part]:
    ordered = sorted(trials, key=lambda trial: trial is best)  # the best on top
    drawn = {f"trial {trial.number}, {trial.status}": trial for trial in ordered if trial.curve}
    if not drawn:
        return [parts.note("No trial reported a metric.")]
    label = f"Learning curves of {len(drawn)} trials: {search.metric} over epochs"
    series = {name: trial.curve for name, trial in drawn.items()}
    chart = charts.lines(label, series, {name: _pen(trial, best) for name, trial in drawn.items()})
    entries = [(name, charts.sample(pen)) for name, pen in (("best", BEST), *PENS.items())]
    return [
        parts.heading("Learning curves"),
        parts.figures([parts.chart(chart, f"{search.metric} over epochs, a line for each trial.")]),
        parts.legend(entries),
    ]


def _coordinates(search: SearchConfig, trials: Sequence[Trial], best: Trial | None) -> list[Part]:
    """Every trial with a metric as a line through its values."""
    drawn = sorted((trial for trial in trials if trial.curve), key=lambda trial: trial is best)  # the best on top
    if not drawn:
        return []
    axes, columns = [], []
    for key in [*search.space, "metric"]:
        values = [trial.metric if key == "metric" else trial.point.get(key) for trial in drawn]
        places, ticks = placed(values, key != "metric" and search.space[key].log_uniform is not None)
        columns.append(places)
        axes.append(Axis(key.rpartition(".")[2], ticks))
    strands = [
        Strand(f"trial {trial.number}: {trial.metric:.4g}", [column[place] for column in columns], _pen(trial, best))
        for place, trial in enumerate(drawn)
    ]
    label = f"Parallel coordinates of {len(strands)} trials over {', '.join(search.space)} and the metric"
    chart = parts.chart(charts.parallel(label, axes, strands), "Each line is a trial; the last axis is its metric.")
    return [parts.heading("Where the trials lie"), parts.figures([chart], "wide")]


def _importance(search: SearchConfig, trials: Sequence[Trial]) -> list[Part]:
    """What the metric depends on, after the last epoch that half of the trials reached, as stopped ones are no longer trained."""
    reached = sorted((trial.curve[-1][0] for trial in trials if trial.curve), reverse=True)
    if not reached or search.scheduler.kind == "pbt":  # whose values change on the way
        return []
    epoch = reached[(len(reached) - 1) // 2]
    seen = [(trial.point, metric) for trial in trials for at, metric in trial.curve if at == epoch]
    shares = importances(search, [point for point, _ in seen], [metric for _, metric in seen])
    if not shares:
        return []
    told = (
        f"Share of the metric's variance that each key explains (fANOVA), by {len(seen)} trials after epoch {epoch:g}"
    )
    chart = parts.chart(charts.bars(told, shares), f"{told}.")
    return [parts.heading("What the metric depends on"), parts.figures([chart])]


def placed(values: Sequence[Any], logarithmic: bool = False) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Where values lie between the lowest (0) and the highest (1), and ticks; words, and what is listed, at even distances."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        scale = math.log if logarithmic else float
        low, high = scale(min(known)), scale(max(known))
        if high == low:
            return [None if value is None else 0.5 for value in values], [(0.5, f"{known[0]:.3g}")]
        places = [None if value is None else (scale(value) - low) / (high - low) for value in values]
        return places, [(0.0, f"{min(known):.3g}"), (1.0, f"{max(known):.3g}")]
    words = sorted({str(value) for value in known})
    at = {word: place / (len(words) - 1) if len(words) > 1 else 0.5 for place, word in enumerate(words)}
    return [None if value is None else at[str(value)] for value in values], [
        (place, word) for word, place in at.items()
    ]
