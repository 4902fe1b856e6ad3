"""From a submission to its score: validate, score."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decathlon.commands import app
from mtan_core.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from decathlon.scoring import PublishedScores
    from decathlon.submission import Scored, Validation

Results = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="results.json, or a zip archive that holds it.", show_default=False)
]
Annotations = Annotated[
    Path | None,
    typer.Option(help="Folder or zip archive of <domain>_test.json files; of <domain>_val.json for the practice form."),
]
Domains = Annotated[str | None, typer.Option(help="Only these domains, e.g. 'svhn,dtd' (default: all).")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command(rich_help_panel="Submission and score")
def validate(
    results: Results,
    annotations: Annotated[Path, typer.Option(help="Folder or zip archive of annotation files, labelled or stripped.")],
    domains: Domains = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse missing images too.")] = False,
    as_json: Json = False,
) -> None:
    """Check a submission: every image known and there once, every category of its image's domain.

    Missing images are counted; with --strict they are refused. Predictions may be of val images, as practice.
    """
    from decathlon.submission import validate_results

    validation = validate_results(results, annotations, domains, strict)
    _report(validation.to_dict(), _validation_table(validation), validation.notes, as_json)


@app.command(rich_help_panel="Submission and score")
def score(
    results: Annotated[
        Path | None,
        typer.Argument(metavar="RESULTS", help="results.json, or a zip archive that holds it.", show_default=False),
    ] = None,
    annotations: Annotations = None,
    accuracies: Annotated[
        Path | None, typer.Option(help="CSV: a column 'method', and one per domain with accuracies in percent.")
    ] = None,
    domains: Domains = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ERROR: a baseline error (fraction) for a domain that is not official."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a submission against labelled annotation files, or a table of accuracies.

    A submission is validated first; a missing image counts as an error. It may be of val images, as practice.
    """
    if accuracies is not None:
        if results is not None or annotations is not None or baseline:
            raise UserError("score: expected --accuracies without RESULTS, --annotations and --baseline, found both.")
        _score_accuracies(accuracies, domains, as_json)
        return
    if results is None or annotations is None:
        raise UserError("score: expected RESULTS with --annotations DIR, or --accuracies FILE.csv.")
    from decathlon.submission import score_results

    scored = score_results(results, annotations, domains, _baselines(baseline or []))
    _report(scored.to_dict(), score_table(scored), scored.notes, as_json)


def _baselines(words: Sequence[str]) -> dict[str, float]:
    """Baseline errors out of NAME=ERROR words. Whether they are fractions is checked where they are used."""
    baselines = {}
    for word in words:
        name, _, error = word.partition("=")
        try:
            baselines[name] = float(error)
        except ValueError:
            raise UserError(f"--baseline: expected NAME=ERROR, such as leaves=0.25, found '{word}'.") from None
    return baselines


def _score_accuracies(path: Path, domains: str | None, as_json: bool) -> None:
    from decathlon.scoring import score_accuracies

    scores = score_accuracies(path, domains)
    _report([row.to_dict() for row in scores.rows], _published_table(scores), scores.notes, as_json)


def _report(document: Any, table: "Table", notes: Sequence[str], as_json: bool) -> None:
    """The table and then the notes on standard output, or the document there and the notes on standard error."""
    if as_json:
        print(json.dumps(document, allow_nan=False))
        for note in notes:
            print(note, file=sys.stderr)
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(table)
    for note in notes:
        console.print(note, markup=False)


def _table(title: str, *columns: str) -> "Table":
    """A table whose first column is text and whose others are numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_footer=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=place > 0)
    return table


def _validation_table(validation: "Validation") -> "Table":
    title = f"Valid: {validation.predictions:,} predictions for the {validation.split} split"
    table = _table(title, "domain", "images", "missing")
    for name, check in validation.domains.items():
        table.add_row(name, f"{check.images:,}", f"{check.missing:,}")
    return table


def score_table(scored: "Scored") -> "Table":
    """Images, accuracy, error and points of each domain, with the total at the foot."""
    table = _table(
        f"Decathlon score, {scored.split} split", "domain", "images", "missing", "accuracy", "error", "points"
    )
    for name, domain in scored.domains.items():
        points = "-" if domain.points is None else f"{domain.points:.1f}"
        accuracy, error = f"{1 - domain.error:.2%}", f"{domain.error:.2%}"
        table.add_row(name, f"{domain.images:,}", f"{domain.missing:,}", accuracy, error, points)
    table.add_section()
    images = sum(domain.images for domain in scored.domains.values())
    missing = sum(domain.missing for domain in scored.domains.values())
    mean = sum(domain.error for domain in scored.domains.values()) / len(scored.domains)
    table.add_row("total, mean", f"{images:,}", f"{missing:,}", f"{1 - mean:.2%}", f"{mean:.2%}", f"{scored.score:.1f}")
    return table


def _published_table(scores: "PublishedScores") -> "Table":
    table = _table("Decathlon scores of published accuracies", "method", "score", "published", "difference")
    for row in scores.rows:
        if row.published is None:
            table.add_row(row.method, f"{row.score:.1f}", "-", "-")
        else:
            table.add_row(row.method, f"{row.score:.1f}", f"{row.published:.0f}", f"{row.score - row.published:+.1f}")
    return table
