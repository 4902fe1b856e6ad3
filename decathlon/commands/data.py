"""From nothing, from archives or from folders to a store: miniature, download, prepare, inspect."""

import json
from pathlib import Path
from typing import Annotated

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
    source: Annotated[Path, typer.Argument(help="An unpacked official root.")],
    store: Annotated[Path, typer.Argument(help="The folder of the store.")],
    domains: Annotated[str, typer.Option(help="Some domains only: a,b,c.")] = "",
) -> None:
    """Write the image store that training reads."""
    from decathlon.data.prepare import prepare as run

    run(source, store, domains or None)
