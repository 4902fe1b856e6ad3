"""From nothing, from archives or from folders to a store: miniature, download, prepare, inspect."""

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from decathlon.commands import app


@app.command()
def miniature(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Another seed, other images and other characters.")] = 0,
    domains: Annotated[str, typer.Option(help="Some domains only: a,b,c.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Generate the miniature: ten small domains like the official ones, in their layout (scores on it are not comparable)."""
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


@app.command()
def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="An unpacked official root, a folder of archives, or archives."),
    ],
    store: Annotated[Path, typer.Argument(help="The folder of the store.")],
    domains: Annotated[str, typer.Option(help="Some domains only: a,b,c.")] = "",
    on_error: Annotated[
        str, typer.Option(help="fail: a domain with a problem is not made; skip: it is made without these images.")
    ] = "fail",
    resplit: Annotated[
        int | None, typer.Option(min=0, help="Divide train and val anew by this seed, stratified by class.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Write the image store that training reads; run again after an interruption, it goes on with the domains not yet done."""
    from decathlon.data import prepare as work
    from decathlon.data.report import tell_outcome

    tell_outcome(work.prepare(sources, store, domains, cast(work.OnError, on_error), resplit), store, as_json)


@app.command()
def inspect(
    store: Annotated[str, typer.Argument(help="A store: a folder, or a URI that Arrow can open.")],
    figure: Annotated[Path | None, typer.Option(help="Write a contact sheet with images of every domain.")] = None,
    domains: Annotated[str, typer.Option(help="Some domains only: a,b,c.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Show what a store holds: images, classes, sizes, and measured beside published statistics."""
    from decathlon.data import inspect as work
    from decathlon.data.store import open_store

    opened = open_store(store).select(domains or None)
    work.show(work.describe(opened), as_json)
    if figure:
        work.contact_sheet(opened, figure)


@app.command()
def download(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the archives go.")],
    base_url: Annotated[str, typer.Option(help="Fetch from a mirror: this, followed by the archive's name.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Fetch the official archives, going on where an earlier attempt stopped, and check them."""
    from decathlon.data import download as work

    work.tell(work.download(folder, base_url or None), as_json)
