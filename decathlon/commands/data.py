"""From nothing, from archives or from folders to a store: miniature, download, prepare, inspect."""

from pathlib import Path
from typing import Annotated

import typer

from decathlon.commands import app


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="An unpacked official root.")],
    store: Annotated[Path, typer.Argument(help="The folder of the store.")],
    domains: Annotated[str, typer.Option(help="Some domains only: a,b,c.")] = "",
) -> None:
    """Write the image store that training reads."""
    from decathlon.data.prepare import prepare as run

    run(source, store, domains or None)
