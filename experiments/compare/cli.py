"""`mtan experiments compare`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mtan_core.errors import UserError


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Finished runs of one kind.", show_default=False)
    ],
    published: Annotated[
        bool, typer.Option("--published", help="Also show published rows; apart where they are not comparable.")
    ] = False,
    reference: Annotated[
        str | None, typer.Option(metavar="RUN|NAME", help="What deltas are taken to (default: the first run's group).")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Labelled test files: submissions in the runs' folders are scored (Decathlon)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line per group and measure.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="LaTeX tabulars.")] = False,
) -> None:
    """Runs side by side: those that differ only in their seed are one row, mean and spread."""
    if sum((as_json, markdown, as_csv, latex)) > 1:
        raise UserError("Expected at most one of --json, --markdown, --csv and --latex, found several.")
    from experiments.compare import comparison, rendering
    from experiments.compare.measured import read_runs

    found = comparison.compare(read_runs(runs, annotations), reference, published)
    if as_json:
        print(json.dumps(found.to_dict(), allow_nan=False))
    elif markdown:
        print(rendering.to_markdown(found), end="")
    elif as_csv:
        print(rendering.to_csv(found), end="")
    elif latex:
        print(rendering.to_latex(found), end="")
    else:
        rendering.print_comparison(found)
