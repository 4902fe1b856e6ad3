"""`mtan experiments report`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|DIR...",
            help="Finished runs, searches and sweeps, or folders that hold runs.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="STORE|ROOT",
            help="The runs' data, for confusions, masks and predictions; without it they are left out.",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Labelled test files: submissions in the runs' folders are scored (Decathlon)."
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="The page's title (default: the runs' names).")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Runs as one HTML page that needs no network: what was run, scores, curves, confusions, masks, predictions."""
    from experiments.report.build import write_report

    written = write_report(runs, out, data, title, annotations)
    if as_json:
        print(json.dumps({"report": str(out), "runs": [str(run) for run in written]}))
    else:
        print(f"{out}: {', '.join(map(str, written))}.")
