"""The `mtan` command: one sub-command group per room, heavy imports inside the commands."""

import errno
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from decathlon.cli import app as decathlon_app
from dense_tasks.cli import app as dense_app
from experiments.bench.cli import app as bench_app
from experiments.compare.cli import compare
from experiments.quickstart import quickstart
from experiments.report.cli import report
from experiments.search import commands as searching
from experiments.sweep.commands import sweep
from experiments.train.commands import train
from mtan_core.errors import UserError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
experiments_app = typer.Typer(
    no_args_is_help=True, help="Many runs: searches, tables, several workers, comparisons, reports, benchmarks."
)
app.add_typer(decathlon_app, name="decathlon")
app.add_typer(dense_app, name="dense")
app.add_typer(experiments_app, name="experiments")
experiments_app.add_typer(bench_app, name="bench")
experiments_app.command()(searching.search)
experiments_app.command()(searching.resume)
experiments_app.command()(sweep)
experiments_app.command()(train)
experiments_app.command()(compare)
experiments_app.command()(report)
app.command()(quickstart)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"mtan {version('mtan-decathlon')}")
        raise typer.Exit


@app.callback()
def mtan(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """One network for many image-classification tasks: the Multi-Task Attention Network on the Visual Decathlon.

    Begin with `mtan quickstart`. Exit codes: 0 done; 2 a mistake in the input; 130 interrupted, can be resumed.
    """


# What the machine refuses is told like a mistake of the user's: nobody needs a traceback to free a disk.
_MACHINE_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT,
                     errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}  # fmt: skip


def main() -> None:
    """Run the command; a mistake of the user's ends in one sentence and exit code 2, a fault of ours in its traceback."""
    # Idle OpenMP threads that spin take the cores from whoever else is at work, and training is slowed several times over.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        raise SystemExit(app(standalone_mode=False) or 0)
    except UserError as mistake:
        fail(str(mistake))
    except OSError as refusal:
        if refusal.errno not in _MACHINE_REFUSALS:
            raise
        where = f": {refusal.filename}" if refusal.filename else ""
        fail(f"{os.strerror(refusal.errno)}{where}.")
    except Exception as problem:
        # The mark of Click's own exceptions, of which Typer has a copy under a private name.
        if not hasattr(problem, "format_message"):
            raise
        _refuse_words(problem)


def _refuse_words(problem: Any) -> NoReturn:
    """A command line that cannot be read: what Click says of it in one line, or the help where nothing was asked for."""
    if type(problem).__name__ == "NoArgsIsHelpError":
        problem.show()
        raise SystemExit(2)
    words, context = " ".join(problem.format_message().split()).rstrip("."), getattr(problem, "ctx", None)
    fail(f"{words} (see `{context.command_path} --help`)." if context else f"{words}.")


def fail(sentence: str) -> NoReturn:
    """Print the sentence on standard error and leave with exit code 2."""
    print(f"mtan: {sentence}", file=sys.stderr)
    raise SystemExit(2)
