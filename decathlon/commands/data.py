"""From nothing, from archives or from folders to a store: miniature, download, prepare, inspect."""

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from decathlon.commands import app


@app.command(rich_help_panel="Data")
def miniature(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Another seed gives other images and other characters.")] = 0,
    domains: Annotated[str, typer.Option(help="Only these domains, e.g. 'svhn,dtd' (default: all).")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Generate ten small domains like the official ones, in their layout (scores on them are not comparable)."""
    from decathlon.miniature import write_miniature

    written = write_miniature(root, seed, domains or None)
    if as_json:
        print(json.dumps({"root": str(root), "seed": seed, "source": "miniature", "domains": written}))
        return
    for name, counts in written.items():
        print(
            f"{name:14} {counts['classes']:3} classes, {counts['train']} train, {counts['val']} val, {counts['test']} test"
        )
    print(f"{root}: a generated miniature of the Decathlon; scores on it are not comparable with published ones.")


@app.command(rich_help_panel="Data")
def download(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder that the archives go to.", show_default=False)
    ],
    base_url: Annotated[
        str, typer.Option(help="Fetch from a mirror instead: this address, followed by the archive's name.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Fetch the official archives and check them; run again after an interruption, it goes on where it stopped."""
    from decathlon.data import download as work
    from mtan_core.stopping import repeatable

    with repeatable("Run it again to go on."):
        work.tell(work.download(folder, base_url or None), as_json)


@app.command(rich_help_panel="Data")
def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="An unpacked official root, a folder of archives, or archives.",
            show_default=False,
        ),
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of the store.", show_default=False)],
    domains: Annotated[str, typer.Option(help="Only these domains, e.g. 'svhn,dtd' (default: all).")] = "",
    on_error: Annotated[
        str, typer.Option(help="fail: a domain with a problem is not made; skip: it is made without these images.")
    ] = "fail",
    resplit: Annotated[
        int | None,
        typer.Option(min=0, help="Divide train and val anew by this seed, in the same proportion in every class."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Write the image store that training reads; run again, it goes on with the domains not yet done."""
    from decathlon.data import prepare as work
    from decathlon.data.report import tell_outcome
    from mtan_core.stopping import repeatable

    with repeatable("Run it again to go on with the domains not yet done."):
        outcome = work.prepare(sources, store, domains, cast(work.OnError, on_error), resplit)
    tell_outcome(outcome, store, as_json)


@app.command(rich_help_panel="Data")
def inspect(
    store: Annotated[
        str,
        typer.Argument(metavar="STORE", help="A store: a folder, or a URI that Arrow can open.", show_default=False),
    ],
    figure: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet, training images of every domain, to this PNG.")
    ] = None,
    domains: Annotated[str, typer.Option(help="Only these domains, e.g. 'svhn,dtd' (default: all).")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Show what a store holds: images, classes, sizes, mean and std measured beside published ones."""
    from decathlon.data import inspect as work
    from decathlon.data.store import open_store
    from mtan_core.files import check_output

    if figure:
        check_output(figure, work.FIGURE_SUFFIXES)
    opened = open_store(store).select(domains or None)
    work.show(work.describe(opened), as_json)
    if figure:
        work.contact_sheet(opened, figure)
