"""A sweep on the page: its rows side by side, and what failed."""

from pathlib import Path

from experiments.report import parts
from experiments.report.common import side_by_side
from experiments.report.parts import Part


def is_sweep(path: Path) -> bool:
    return (path / "sweep.json").is_file()


def sweep_parts(folder: Path) -> list[Part]:
    """The table of what is finished. Raises UserError for a sweep without anything finished."""
    from experiments.sweep.engine import failures, finished_rows, read_sweep

    made = read_sweep(folder)
    shown = parts.facts({
        "folder": folder, "data": made.where.data, "trainings": len(made.cells), "finished": sum(map(made.done, made.cells)),
        "seeds": ", ".join(map(str, made.table.seeds)),
    })  # fmt: skip
    table = parts.code("The table", (folder / "sweep.toml").read_text(encoding="utf-8"))
    return [shown, table, *side_by_side(finished_rows(made, failures(made)))]
