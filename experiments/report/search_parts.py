"""A search over configurations on the page: its trials as a table, their curves, and where in the space they lie."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.compare.rendering import NONE, Table
from experiments.report import charts, parts
from experiments.report.charts import Axis, Pen, Strand
from experiments.report.parts import Part
from experiments.search.config import KIND, SearchConfig
from experiments.search.figures import axes_of, best_of, ends, importance
from experiments.search.results import BEST, LINEAGE, SCHEDULE
from mtan_core.config import read_toml
from mtan_core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PENS = {
    "finished": Pen("var(--c0)", 1.4), "stopped": Pen("var(--soft)", 0.8, "4 3"), "failed": Pen("var(--c3)", 1.1, "1.5 2.5"),
}  # fmt: skip
FIRST = Pen("var(--c1)", 2.6)  # the best trial's
SHIPPED = {
    BEST: "Configuration of the best trial",
    SCHEDULE: "Schedule of the best trial",
    LINEAGE: "Who became a copy of whom",
}


def is_search(path: Path) -> bool:
    return (path / "search.json").is_file()


def search_parts(folder: Path) -> list[Part]:
    """All parts of a search's section. Raises UserError for one without results."""
    if not (folder / "trials.parquet").is_file():
        raise UserError(
            f"Expected a finished search, found one without trials.parquet: {folder} (go on with `resume`)."
        )
    import pandas as pd

    search = KIND.parse(read_toml(folder / "search.toml"), str(folder / "search.toml"))
    table = pd.read_parquet(folder / "trials.parquet")
    best = best_of(table, search)
    counts = table.drop_duplicates("trial")["status"].value_counts()
    shown = [
        parts.facts({
            "folder": folder, "task": search.task, "begins from": search.config or search.preset or "the task's preset",
            "sampler, scheduler": f"{search.sampler}, {search.scheduler.kind}", "metric": f"{search.metric} ({search.mode})",
            "trials": ", ".join(f"{count} {_told(status)}" for status, count in counts.items()), "seed": search.seed,
            "best": None if best is None else f"trial {best}: {ends(table)['metric'][best]:.4g}",
        }),
        parts.code("What was searched", (folder / "search.toml").read_text(encoding="utf-8")),
    ]  # fmt: skip
    for name, title in SHIPPED.items():
        if (folder / name).is_file():
            shown.append(parts.code(title, (folder / name).read_text(encoding="utf-8")))
    shown += [parts.heading("Trials"), parts.table(_trials(table))]
    if not table["metric"].notna().any():
        return [*shown, parts.note("No trial reported a metric.")]
    return [*shown, *_curves(search, table, best), *_coordinates(search, table, best), *_importance(search, table)]


def _trials(table: "pd.DataFrame") -> Table:
    """A line for each trial, with its values and metric after its last validated epoch."""
    keys = [str(name).removeprefix("config.") for name in table if str(name).startswith("config.")]
    columns = ["trial", "status", "metric", "epoch", "seconds", *keys, "error"]
    last = table.sort_values(["trial", "epoch"]).groupby("trial").tail(1).set_index("trial")
    last.update(ends(table))
    rows = [
        [str(row["trial"]), *(_told(row[name]) for name in ("status", "metric", "epoch", "seconds")),
         *(_told(row[f"config.{key}"]) for key in keys), _told(row["error"])]
        for row in last.reset_index().to_dict("records")
    ]  # fmt: skip
    return Table("All trials, with the metric after each one's last validated epoch", columns, rows)


def _told(value: Any) -> str:
    if value is None or value != value:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pen(trial: Hashable, status: str, best: int | None) -> Pen:
    return FIRST if trial == best else PENS.get(status, PENS["stopped"])


def _curves(search: SearchConfig, table: "pd.DataFrame", best: int | None) -> list[Part]:
    """The metric over epochs, and in population based training the values, which change on the way."""
    columns = {"metric": search.metric}
    if search.scheduler.kind == "pbt":
        numbers = table.select_dtypes("number")
        columns |= {f"config.{key}": key for key in search.space if f"config.{key}" in numbers}
    known = table[table["metric"].notna()].sort_values(["trial", "epoch"])
    shown = []
    for column, told in columns.items():
        series, pens = {}, {}
        for trial, own in sorted(known.groupby("trial"), key=lambda each: each[0] == best):  # the best on top
            status = str(own["status"].iloc[0])
            name = f"trial {trial}, {status}"
            series[name] = [
                (float(epoch), float(value)) for epoch, value in zip(own["epoch"], own[column], strict=True)
            ]
            pens[name] = _pen(trial, status, best)
        label = f"{told} over epochs, a line for each of {len(series)} trials"
        shown.append(parts.chart(charts.lines(label, series, pens), f"{label}."))
    entries = [(name, charts.sample(pen)) for name, pen in (("best", FIRST), *PENS.items())]
    return [parts.heading("Learning curves"), parts.figures(shown), parts.legend(entries)]


def _coordinates(search: SearchConfig, table: "pd.DataFrame", best: int | None) -> list[Part]:
    """Every trial with a metric as a line through its values."""
    axes, last = axes_of(search, table), ends(table)
    drawn = zip(map(int, last.index.tolist()), last["status"].tolist(), last["metric"].tolist(), strict=True)
    strands = [
        Strand(f"trial {trial}: {metric:.4g}", [_place(axis.places, trial) for axis in axes], _pen(trial, status, best))
        for trial, status, metric in sorted(drawn, key=lambda each: each[0] == best)  # the best on top
    ]
    shown = [
        Axis(axis.name if axis is axes[-1] else axis.name.rpartition(".")[2], list(axis.ticks.items())) for axis in axes
    ]
    label = f"Parallel coordinates of {len(strands)} trials over {', '.join(axis.name for axis in axes)}"
    chart = parts.chart(charts.parallel(label, shown, strands), "Each line is a trial; the last axis is its metric.")
    return [parts.heading("Where the trials lie"), parts.figures([chart], "wide")]


def _place(places: Mapping[int, float], trial: int) -> float | None:
    """Where a trial lies on an axis; None where it was not searched there."""
    place = places.get(trial)
    return None if place is None or place != place else place


def _importance(search: SearchConfig, table: "pd.DataFrame") -> list[Part]:
    found = importance(search, table)
    head = parts.heading("What the metric depends on")
    if isinstance(found, str):
        return [head, parts.note(f"{found[0].upper()}{found[1:]}.")]
    without = f"; without {', '.join(found.left_out)}, which not all trials have" if found.left_out else ""
    told = f"Share of the metric's variance that each key explains (fANOVA), by {found.trials} trials after epoch {found.epoch}"
    return [head, parts.figures([parts.chart(charts.bars(told, found.shares), f"{told}{without}.")])]
