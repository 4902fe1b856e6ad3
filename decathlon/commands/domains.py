"""A trained run's domains: add-domain, drop-domain."""

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from decathlon.commands import app
from decathlon.commands.runs import Checkpoint, Json, RunPath, tell
from mtan_core.choices import choose_checkpoint
from mtan_core.errors import UserError

PANEL = "See and use a run"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The domain's name.", show_default=False)]
NewRun = Annotated[Path, typer.Option("--run", help="The new run's folder.", show_default=False)]


@app.command("add-domain", rich_help_panel=PANEL)
def add_domain(
    run: RunPath,
    name: Name,
    images: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="A folder of class folders, a CSV of path and label, or an official root that holds the domain.",
            show_default=False,
        ),
    ],
    new_run: NewRun,
    fit: Annotated[
        str | None, typer.Option(help="How images are made square: crop, or squash the whole of it (default).")
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option("--mirror/--no-mirror", help="Whether a mirrored image keeps its label (default: no)."),
    ] = None,
    baseline_error: Annotated[
        float | None, typer.Option(help="Error (fraction) at which the domain is worth 250 points; without, no points.")
    ] = None,
    val_share: Annotated[
        float, typer.Option(help="Share of the labelled images for val, where none is given; 0: none.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that division.")] = 0,
    on_error: Annotated[
        str, typer.Option(help="fail: an image that cannot be used is refused; skip: it is left out.")
    ] = "fail",
    unfreeze: Annotated[
        str | None, typer.Option(help="Parts that learn as well: pool, ladder, or both. Other domains change then.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="STORE", help="The old domains' store: report their accuracy before and after."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the run's recipe; repeatable."),
    ] = None,
    checkpoint: Checkpoint = "last",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a new run that was interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Add a domain to a trained run as an attention head; all other domains stay as they are, bit for bit."""
    from decathlon import adding
    from decathlon.addition import Addition
    from decathlon.data.custom import Choices
    from decathlon.specs import Fit
    from mtan_core.stopping import repeatable, stoppable

    _one_of("--fit", fit, ("crop", "squash"))
    _one_of("--on-error", on_error, ("fail", "skip"))
    parts = [part.strip() for part in unfreeze.split(",")] if unfreeze else []
    for part in parts:
        _one_of("--unfreeze", part, adding.SHARED_PARTS)
    choices = Choices(cast(Fit | None, fit), mirror, baseline_error, val_share, seed, on_error == "skip")
    addition = Addition(run, name, images, new_run, choices, changes or [], parts, choose_checkpoint(checkpoint))
    with repeatable("Run it again."):
        adding.begin(addition, resume, data)
    with stoppable(f"the same command and --resume ({new_run})") as stop:
        made = adding.add_domain(addition, data, True, stop)
    if as_json:
        print(json.dumps(made))
    else:
        _print_added(made)
    tell(made["notes"], as_json)


def _one_of(option: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise UserError(f"{option}: expected {' or '.join(known)}, found '{value}'.")


def _print_added(made: dict[str, Any]) -> None:
    from mtan_core.tables import print_table

    counts, parameters = made["images"], made["parameters"]
    kinds = {"masks": "of masks", "adapters": "of adapters", "head": "of its head", "norms": "of batch norms"}
    parts = [f"{parameters[kind]:,} {words}" for kind, words in kinds.items() if parameters[kind]]
    images = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(
        f"{made['run']}: {made['domain']} added as number {made['number']}: {made['classes']} classes, {images} images."
    )
    print(
        f"It adds {parameters['total']:,} parameters: {', '.join(parts)}; "
        f"{made['share_of_pool']:.2%} of the pool's {made['pool_parameters']:,}."
    )
    if made["val_accuracy"] is not None:
        points = "" if made["val_points"] is None else f", {made['val_points']:.1f} points"
        print(f"Validation accuracy {made['val_accuracy']:.1%}{points}. Its images: {made['store']}")
    if made["others"]:
        rows = [(name, f"{a['before']:.1%}", f"{a['after']:.1%}") for name, a in made["others"].items()]
        print_table("Other domains, accuracy on val", ("domain", "before", "after"), rows)


@app.command("drop-domain", rich_help_panel=PANEL)
def drop_domain(run: RunPath, name: Name, new_run: NewRun, as_json: Json = False) -> None:
    """Write a run without one of its domains; all others stay as they are, bit for bit."""
    from decathlon.dropping import drop_domain

    summary = drop_domain(run, name, new_run)
    if as_json:
        print(json.dumps(summary))
        return
    print(f"{new_run}: {run} without {name}; left are {', '.join(summary['domains'])}.")
