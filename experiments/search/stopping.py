"""SIGTERM like Ctrl-C: Ray Tune writes its state, ends its trials, and the command says how to go on."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM becomes SIGINT, which Ray Tune takes for the wish to stop.

    To be entered when Ray has been started: it takes SIGTERM for a crash, and says so in C++.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
