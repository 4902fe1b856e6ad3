"""`mtan experiments train`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mtan_core.errors import UserError


def train(
    data: Annotated[str, typer.Option(metavar="STORE", help="The image store, or the root of dense data.")],
    run: Annotated[
        Path,
        typer.Option(help="The run's folder, which all machines reach if there is no --storage; new unless resumed."),
    ],
    workers: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    min_workers: Annotated[
        int | None, typer.Option(min=1, help="Train with as few as these where no more can be had (elastic).")
    ] = None,
    task: Annotated[str, typer.Option(help="decathlon or dense.")] = "decathlon",
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="A preset of the task.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A configuration file (TOML).", exists=True, dir_okay=False)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key, after preset or file; repeatable."),
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Short for --set method=NAME.")] = None,
    weighting: Annotated[str | None, typer.Option(metavar="NAME", help="Short for --set weighting.kind=NAME.")] = None,
    pool_from: Annotated[str | None, typer.Option(metavar="RUN", help="Short for --set pool_from=RUN.")] = None,
    domains: Annotated[str | None, typer.Option(help="decathlon: only these domains, e.g. 'svhn,dtd'.")] = None,
    protocol: Annotated[str | None, typer.Option(help="decathlon: train, or train+val.")] = None,
    sync_norm: Annotated[
        bool, typer.Option(help="Normalise by the statistics of all workers' images, or of each one's own.")
    ] = True,
    cpus: Annotated[float, typer.Option(min=0.01, help="CPUs of a worker.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a worker.")] = 0.0,
    restarts: Annotated[int, typer.Option(min=0, help="How often to go on when a worker is lost.")] = 3,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: HOST:PORT, ray://HOST:PORT or auto (default: this machine alone)."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where the run is copied, for machines without a common disk: a folder or URI that all reach."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint; without one, start anew.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train one run with several workers, on this machine or a cluster; a batch is that of all of them together."""
    from mtan_core.runs import resolve

    if task not in ("decathlon", "dense"):
        raise UserError(f"--task: expected decathlon or dense, found '{task}'.")
    if min_workers is not None and min_workers > workers:
        raise UserError(f"--min-workers: expected at most --workers ({workers}), found {min_workers}.")
    if task == "decathlon":
        from decathlon.config import KIND
    else:
        from dense_tasks.config import KIND  # type: ignore[assignment]
    if storage and resume:
        from experiments.train.copies import settle

        settle(storage, run)
    short = {
        "method": method, "weighting.kind": weighting, "pool_from": pool_from, "domains": domains, "protocol": protocol,
    }  # fmt: skip
    settings = resolve(KIND, preset, config, changes or [], short, run, resume)
    from experiments.train.engine import Workers, train_together

    how = Workers(workers, min_workers, cpus, gpus, restarts)
    summary = train_together(task, settings, data, run, how, resume, sync_norm, address, storage)  # type: ignore[arg-type]
    if as_json:
        print(json.dumps(summary))
        return
    by = "1 worker" if summary["workers"] == 1 else f"{summary['workers']} workers"
    print(f"{run}: trained by {by} in {summary['seconds']:.0f} s.")
