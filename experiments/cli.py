"""The `mtan` command: one sub-command group per room, heavy imports inside the commands."""

import errno
import os
import sys

import typer

from decathlon.cli import app as decathlon_app
from experiments.bench.cli import app as bench_app
from experiments.quickstart import quickstart
from mtan_core.errors import UserError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
experiments_app = typer.Typer(no_args_is_help=True, help="Runs of many runs: benchmarks.")
app.add_typer(decathlon_app, name="decathlon")
app.add_typer(experiments_app, name="experiments")
experiments_app.add_typer(bench_app, name="bench")
app.command()(quickstart)

# What the machine refuses is told like a mistake of the user's: nobody needs a traceback to free a disk.
_MACHINE_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT,
                     errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}  # fmt: skip


def main() -> None:
    """Run the command; a mistake of the user's ends in one sentence and exit code 2, a fault of ours in its traceback."""
    try:
        app()
    except UserError as mistake:
        fail(str(mistake))
    except OSError as refusal:
        if refusal.errno not in _MACHINE_REFUSALS:
            raise
        where = f": {refusal.filename}" if refusal.filename else ""
        fail(f"{os.strerror(refusal.errno)}{where}.")


def fail(sentence: str) -> None:
    """Print the sentence on standard error and leave with exit code 2."""
    print(f"mtan: {sentence}", file=sys.stderr)
    raise SystemExit(2)
