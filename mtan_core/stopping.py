"""Ctrl-C and SIGTERM as a wish, not a blow: the run writes a checkpoint after its step and says how to go on."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mtan_core.errors import Interrupted

INTERRUPTED = 130  # the shell's exit code for SIGINT


@contextmanager
def stoppable(how: str) -> Iterator[Callable[[], bool]]:
    """Yield the question whether to stop; `how` says how to go on. A second Ctrl-C stops at once, without a checkpoint."""
    asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("mtan: stopping after this step (Ctrl-C again: at once, without a checkpoint).", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    except Interrupted as stopped:
        print(
            f"mtan: stopped; {stopped.args[0]} is written. Go on with {how}.",
            file=sys.stderr,
        )
        raise SystemExit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def repeatable(how: str) -> Iterator[None]:
    """Ctrl-C in work that leaves nothing half done: say so, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"mtan: stopped; nothing that is half done was left. {how}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
