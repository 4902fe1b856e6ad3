"""The parts that runs of both kinds have: what was run on what, and curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.compare.comparison import Comparison
from experiments.compare.measured import Measured
from experiments.compare.rendering import all_notes, tables
from experiments.report import charts, parts
from experiments.report.parts import Part

if TYPE_CHECKING:
    import pandas as pd


def what_was_run(run: Measured, data: Mapping[str, Any]) -> list[Part]:
    """Configuration, commit, versions, machine, seed, protocol."""
    summary = run.summary
    return [
        parts.facts({
            "folder": run.path, "method": run.config.get("method"), "weighting": run.config.get("weighting.kind"),
            "protocol": run.protocol, "seed": run.seed, **data, "checkpoint": "last",
            "parameters": f"{run.parameters:,}" if run.parameters else None,
            "epochs, steps": f"{summary['epochs']}, {summary['steps']:,}" if "epochs" in summary else None,
            "images seen": f"{summary['images']:,}" if "images" in summary else None,
            "minutes": f"{run.seconds / 60:.1f}" if run.seconds is not None else None,
            "commit": summary.get("commit"), "versions": versions(summary), "machine": machine(summary),
        }),
        parts.code("Configuration", (run.path / "config.toml").read_text(encoding="utf-8")),
    ]  # fmt: skip


def versions(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {summary[name]}" for name in ("python", "torch") if name in summary)


def machine(summary: Mapping[str, Any]) -> str:
    return f"{summary['device']}, {summary.get('threads')} threads" if "device" in summary else ""


def curves(run: Measured, column: str, panels: Mapping[str, str]) -> list[Part]:
    """A chart per measured column of `metrics.parquet`, a line per domain or task (`column`)."""
    path = run.path / "metrics.parquet"
    if not path.is_file():
        return [parts.note("No metrics over epochs: the run was imported.")]
    import pandas as pd

    metrics = pd.read_parquet(path)
    names = sorted(metrics[column].unique())
    shown = []
    for key, title in panels.items():
        series = {name: points(metrics[metrics[column] == name], key) for name in names}
        if any(series.values()):
            shown.append(
                parts.chart(charts.lines(f"{title} over epochs, a line each for {', '.join(names)}", series), title)
            )
    legend = parts.legend([(name, charts.sample(charts.pen(place))) for place, name in enumerate(names)])
    return [parts.heading("Curves"), parts.figures(shown), legend] if shown else []


def points(metrics: "pd.DataFrame", key: str) -> list[tuple[float, float]]:
    if key not in metrics:
        return []
    own = metrics[["epoch", key]].dropna().sort_values("epoch")
    return [(float(epoch), float(value)) for epoch, value in own.itertuples(index=False) if abs(value) != float("inf")]


def side_by_side(found: Comparison) -> list[Part]:
    """A comparison's tables and notes."""
    shown = [parts.table(table) for table in tables(found)]
    return [*shown, *(parts.note(f"{text}.") for text in all_notes(found))]


def name_of(path: Path) -> str:
    """What a run is called: its folder, with that above it where all are called `run`."""
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name == "run" else path.name
