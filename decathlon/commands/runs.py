"""Runs: train, evaluate, submit, import-weights, presets."""

import json
from pathlib import Path
from typing import Annotated

import typer

from decathlon.commands import app

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Data = Annotated[str, typer.Option(help="The image store (a folder or a URI).", show_default=False)]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.", show_default=False)]


@app.command()
def train(
    data: Data,
    run: Annotated[Path, typer.Option(help="The folder of the run.", show_default=False)],
    preset: Annotated[str | None, typer.Option(help="A preset by name (see `presets`); default wrn28-4.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A configuration file (TOML).", exists=True, dir_okay=False)
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; repeatable.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Short for --set method=NAME.")] = None,
    weighting: Annotated[str | None, typer.Option(help="Short for --set weighting.kind=NAME.")] = None,
    domains: Annotated[str | None, typer.Option(help="Some domains only: a,b,c.")] = None,
    protocol: Annotated[str | None, typer.Option(help="train, or train+val.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print what it would cost; train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network on the domains of a store."""
    from decathlon.stopping import stoppable
    from decathlon.training import resolve, train

    short = {"method": method, "weighting.kind": weighting, "domains": domains, "protocol": protocol}
    resolved = resolve(preset, config, changes or [], short, run, resume)
    if dry_run:
        from decathlon.dry_run import estimate, print_estimate

        print_estimate(estimate(resolved, data), as_json)
        return
    with stoppable(run) as stop:
        summary = train(resolved, data, run, resume, stop)
    if as_json:
        print(json.dumps(summary))
    elif summary["mean_val_accuracy"] is not None:
        print(
            f"{run}: trained; mean validation accuracy {summary['mean_val_accuracy']:.1%} ({summary['protocol']} protocol)."
        )
    else:
        print(f"{run}: trained ({summary['protocol']} protocol, no validation).")
