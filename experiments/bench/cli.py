"""The `mtan experiments bench` commands: what is fast, measured side by side in one run."""

import typer

app = typer.Typer(no_args_is_help=True, help="Benchmarks: each compares its sides in one run.")
