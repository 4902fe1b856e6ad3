"""The top command `mtan quickstart`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def quickstart(
    out: Annotated[
        Path, typer.Option(help="Folder for everything that is made; run again, it goes on with what is there.")
    ] = Path("quickstart"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the miniature and of the training.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """The main job on a generated miniature of the challenge, start to finish: data, training, submission, score, figures."""
    from decathlon.quickstart import quickstart
    from experiments.report.build import write_report

    result = quickstart(out, seed)
    write_report(
        [out / "run"], out / "report.html", str(out / "store"), "Quickstart: a generated miniature, not the Decathlon"
    )
    if as_json:
        print(json.dumps(result))
    else:
        _print(result, out)


def _print(result: dict[str, Any], out: Path) -> None:
    from mtan_core.tables import print_table

    rows = [
        (
            r["domain"],
            str(r["classes"]),
            f"{r['chance']:.0%}",
            f"{r['val']:.1%}",
            f"{r['test']:.1%}",
            f"{r['points']:.0f}",
        )
        for r in result["rows"]
    ]
    total = ("total, mean", "", "", "", f"{result['mean_test_accuracy']:.1%}", f"{result['score']:.0f}")
    print_table("Generated miniature", ("domain", "classes", "chance", "val", "test", "points"), [*rows, total])
    for note in result["notes"]:
        print(note)
    print(
        f"Predictions: {out / 'results.json'}   figures: {out / 'figures'}   run: {out / 'run'}   report: {out / 'report.html'}"
    )
