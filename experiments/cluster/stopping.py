"""SIGTERM like Ctrl-C: Ray Tune writes its state, ends its trials, and the command says how to go on."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def _interrupt(number: int, frame: object) -> None:
    """Pass it on as SIGINT, which shells have commands in the background ignore: then without a detour."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM becomes SIGINT, which Ray Tune takes for the wish to stop.

    To be entered when Ray has been started: it takes SIGTERM for a crash, and says so in C++.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
