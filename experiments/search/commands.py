"""`mtan experiments search` and `mtan experiments resume`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def search(
    config: Annotated[
        Path, typer.Argument(help="The search's configuration (TOML), see docs/search.md.", exists=True, dir_okay=False)
    ],
    data: Annotated[str, typer.Option(metavar="STORE", help="The image store, or the root of dense data.")],
    out: Annotated[Path, typer.Option(help="The folder of the search, a new one.")],
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: HOST:PORT or auto (default: this machine alone)."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Where trials leave checkpoints: a folder or URI that all machines reach.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials that would run; start nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Search over configurations: many trainings, the best of which is written down."""
    from experiments.search.config import read_search
    from experiments.search.space import points

    settings = read_search(config)
    if dry_run:
        known = points(settings)
        if as_json:
            print(json.dumps({"trials": settings.trials if known is None else len(known), "points": known}))
            return
        _print_points(known, settings.trials)
        return
    from experiments.search.engine import search as run_search

    _tell(run_search(settings, data, out, address, storage), as_json)


def resume(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a search or a sweep.")],
    as_json: Json = False,
) -> None:
    """Go on with a search or a sweep that was stopped or killed; what is finished is not run again."""
    if (out / "sweep.json").is_file():
        from experiments.sweep.commands import tell
        from experiments.sweep.engine import resume as resume_sweep

        tell(resume_sweep(out), as_json)
        return
    from experiments.search.engine import resume as resume_search

    _tell(resume_search(out), as_json)


def _print_points(known: list[dict[str, Any]] | None, trials: int) -> None:
    if known is None:
        print(f"{trials} trials; where each is depends on the results of those before it (tpe).")
        return
    for number, point in enumerate(known):
        print(f"{number}: " + ", ".join(f"{key} = {value}" for key, value in point.items()))


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    best = found["best"]
    point = ", ".join(f"{key} = {value}" for key, value in best["point"].items())
    left = "best.toml"
    if "replay_metric" in best:
        replayed = best["replay_metric"]
        left = "best_schedule.toml" + ("" if replayed is None else f", whose replay came to {replayed:.4g}")
    print(
        f"{found['search']}: {found['trials']} trials, {found['finished']} finished, {found['stopped']} stopped, "
        f"{found['failed']} failed; best {found['metric']} {best['metric']:.4g} at {point}: {left}." + _beside(found)
    )


def _beside(found: dict[str, Any]) -> str:
    """What the configuration that all began from came to."""
    base = found["base"]
    if base is None:
        return ""
    if base["trial"] == found["best"]["trial"]:
        return " That is the configuration it began from: nothing beat it."
    became = {"stopped": "was stopped", "finished": "ended"}.get(base["status"], base["status"])
    reached = "" if base["metric"] is None else f" at {base['metric']:.4g}"
    return f" The configuration it began from {became}{reached}."
