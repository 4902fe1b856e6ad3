"""The `mtan dense` commands. Each parses, calls and prints; what it calls is imported inside it, so that --help is quick."""

import typer

app = typer.Typer(no_args_is_help=True, help="Several predictions for every pixel of an image, one network.")
