"""`mtan experiments sweep`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from experiments.sweep.config import TableConfig
    from experiments.sweep.engine import Swept


def sweep(
    table: Annotated[
        str,
        typer.Argument(metavar="TABLE", help="A table (TOML), or the name of one that is shipped, see docs/sweep.md."),
    ],
    data: Annotated[str, typer.Option(metavar="STORE|ROOT", help="The image store, or the root of dense data.")],
    out: Annotated[Path, typer.Option(help="The folder of the sweep, a new one.")],
    annotations: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Labelled test files: runs are submitted and scored as well (Decathlon)."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: HOST:PORT or auto (default: this machine alone)."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where runs are mirrored, for machines without a common disk: a folder or URI that all reach."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the trainings that would run; start nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train a table, methods x weightings x seeds, and set its rows side by side. `resume` goes on with it."""
    from experiments.sweep.config import read_table

    settings = read_table(table)
    if dry_run:
        _print_trainings(settings, out, as_json)
        return
    from experiments.sweep.engine import Where
    from experiments.sweep.engine import sweep as run_sweep

    where = Where(data, storage, address, str(annotations) if annotations is not None else None)
    tell(run_sweep(settings, out, where), as_json)


def _print_trainings(table: "TableConfig", out: Path, as_json: bool) -> None:
    from experiments.sweep.config import cells, sources

    every = cells(table)
    told = [
        {"row": cell.row.name, "seed": cell.seed, "run": str(out / "runs" / cell.name), "hidden": cell.row.hidden,
         "upon": [other.name for other in sources(cell, every)], "set": list(cell.row.changes)}
        for cell in every
    ]  # fmt: skip
    if as_json:
        print(json.dumps({"trainings": len(told), "rows": told}))
        return
    for one in told:
        upon = f" (upon {', '.join(one['upon'])})" if one["upon"] else ""  # type: ignore[arg-type]
        print(f"{Path(str(one['run'])).name}{upon}: {', '.join(one['set'])}")  # type: ignore[arg-type]
    print(f"{len(told)} trainings of {len({one['row'] for one in told})} rows.")


def tell(swept: "Swept", as_json: bool) -> None:
    """What a sweep came to: its tables, or the one document."""
    if as_json:
        print(json.dumps(swept.to_dict(), allow_nan=False))
        return
    from experiments.compare.rendering import print_comparison

    print_comparison(swept.found)
    print(
        f"{swept.made.out}: {len(swept.made.cells)} trainings, {swept.finished} finished, {len(swept.errors)} failed: "
        "table.md, table.csv, table.tex, table.json."
    )
