"""What a sweep leaves: its rows side by side, as tables of every form."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.compare.comparison import Comparison, Group, set_beside
from experiments.compare.measured import read_runs
from experiments.compare.rendering import to_csv, to_latex, to_markdown
from mtan_core.files import write_json, write_text


def compared(
    rows: Mapping[str, Sequence[Path]], reference: str | None, annotations: Path | None, remarks: Sequence[str] = ()
) -> Comparison:
    """The finished runs of each row beside a reference (default, and where it has none: the first row that has)."""
    groups = [Group(name, tuple(read_runs(runs, annotations))) for name, runs in rows.items() if runs]
    chosen = reference if reference in [group.name for group in groups] else None
    found = set_beside(groups, chosen)
    lacking = [f"{name}: no finished run" for name, runs in rows.items() if not runs]
    return replace(found, remarks=(*remarks, *lacking))


def write_tables(out: Path, found: Comparison) -> None:
    """`table.md`, `table.csv`, `table.tex` and `table.json`."""
    write_text(out / "table.md", to_markdown(found))
    write_text(out / "table.csv", to_csv(found))
    write_text(out / "table.tex", to_latex(found))
    write_json(out / "table.json", found.to_dict(), indent=1)
