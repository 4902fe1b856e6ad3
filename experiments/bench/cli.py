"""The `mtan experiments bench` commands: what is fast, measured side by side in one run."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Benchmarks: each compares its sides in one run, on this machine.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Rounds = Annotated[int, typer.Option(help="How often the sides take turns.")]
Seconds = Annotated[float, typer.Option(help="How long a turn lasts at least, in seconds.")]


@app.command()
def data(
    store: Annotated[str, typer.Argument(help="A store; without one, a miniature is generated.")] = "",
    source: Annotated[Path | None, typer.Option(help="The unpacked official root that the store was made of.")] = None,
    batch: Annotated[int, typer.Option(help="Images per batch.")] = 64,
    rounds: Rounds = 5,
    seconds: Seconds = 3.0,
    as_json: Json = False,
) -> None:
    """Images per second from disk to normalised batches: ImageFolder, PIL and DataLoader against our batches."""
    from experiments.bench import data as work

    document = work.measure_data_of(store, source, batch, rounds, seconds)
    if as_json:
        print(json.dumps(document))
    else:
        work.print_data(document)


@app.command()
def step(
    batch: Annotated[int, typer.Option(help="Images per domain; the paper's number is the default.")] = 100,
    domains: Annotated[str, typer.Option(help="Some domains only: a,b,c.")] = "",
    rounds: Rounds = 2,
    seconds: Seconds = 5.0,
    size: Annotated[int, typer.Option(help="Side of the images in pixels, at least 64.", min=64)] = 72,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.", min=0)] = 0,
    clock: Annotated[
        str, typer.Option(help="wall; or cpu (processor time), where other work disturbs: use it with one thread.")
    ] = "wall",
    growth: Annotated[bool, typer.Option(help="Also 1, 2 and 5 domains, to show how the cost grows.")] = True,
    as_json: Json = False,
) -> None:
    """Training steps of WRN-28-4: the plain loop against our joint step, and how near that is to the machine's limit.

    On two cores all of it takes twenty minutes; --no-growth and --batch 16 shorten it.
    """
    from decathlon.specs import choose_domains, official_domains
    from experiments.bench import step as work

    names = choose_domains(domains or None, list(official_domains()), "the challenge")
    task = work.Task(tuple(names), batch, size, threads=threads, clock=clock)
    document = work.measure_step(task, rounds, seconds, None if growth else [len(names)])
    if as_json:
        print(json.dumps(document))
    else:
        work.print_step(document)


@app.command()
def dense(
    batch: Annotated[int, typer.Option(help="Images per step; the paper's number for NYUv2 is the default.")] = 2,
    height: Annotated[int, typer.Option(help="In pixels, a multiple of 32.")] = 288,
    width: Annotated[int, typer.Option(help="In pixels, a multiple of 32.")] = 384,
    rounds: Rounds = 3,
    seconds: Seconds = 20.0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.")] = 0,
    clock: Annotated[
        str, typer.Option(help="wall; or cpu (processor time), where other work disturbs: use it with one thread.")
    ] = "wall",
    as_json: Json = False,
) -> None:
    """Training steps of MTAN on SegNet with three tasks: the plain loop over tasks against our joint step.

    A round is at least one step of each side. On two cores a step of the plain loop takes about half a minute.
    """
    from experiments.bench import dense as work

    document = work.measure_dense(work.Work(batch, height, width, threads, clock), rounds, seconds)
    if as_json:
        print(json.dumps(document))
    else:
        work.print_dense(document)


@app.command()
def search(
    nothings: Annotated[int, typer.Option(help="Trials that do nothing.", min=1)] = 200,
    trainings: Annotated[int, typer.Option(help="Tiny trainings, each in the search and in the loop.", min=1)] = 40,
    cores: Annotated[int, typer.Option(help="Trials at once; 0: as many as there are cores.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """What a search with Ray costs beyond its trainings: time per trial, trials per hour, memory of all processes."""
    import os

    from experiments.bench import search as work

    document = work.measure_search(nothings, trainings, cores or os.cpu_count() or 1)
    if as_json:
        print(json.dumps(document))
    else:
        work.print_search(document)
