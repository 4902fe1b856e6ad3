"""What workers and the command tell each other while a run trains: an actor of Ray's, which outlives a worker that dies."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from mtan_core.progress import Advance

EVERY = 0.2  # seconds between two messages of the leader


@dataclass(frozen=True)
class Standing:
    """How far training is, as the leader last said; `beginnings` counts how often the workers began."""

    beginnings: int = 0
    steps: int = 0
    total: int | None = None
    note: str = ""
    mistake: str | None = None  # the user's, which no further attempt would mend
    stopped: str | None = None  # the checkpoint that was written on request
    stopping: bool = False


class Desk:
    """Holds the standing; everybody writes into it."""

    def __init__(self) -> None:
        self.standing = Standing()

    def read(self) -> Standing:
        return self.standing

    def write(self, **changes: Any) -> None:
        self.standing = Standing(**{**self.standing.__dict__, **changes})

    def begin(self) -> Standing:
        """Told by the leader; returns what was before."""
        before = self.standing
        self.write(beginnings=before.beginnings + 1)
        return before


def new_desk() -> Any:
    """A desk on this machine, whatever its CPUs do."""
    return ray.remote(num_cpus=0)(Desk).remote()


class Telling:
    """The leader's progress bar and its question whether to stop, neither of which waits for an answer."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk
        self._asked = desk.read.remote()
        self._stopping = False

    def stop(self) -> bool:
        if ray.wait([self._asked], timeout=0)[0]:
            self._stopping = ray.get(self._asked).stopping
            self._asked = self.desk.read.remote()
        return self._stopping

    @contextmanager
    def show(self, title: str, total: int | None = None, start: int = 0) -> Iterator[Advance]:
        """As `mtan_core.progress.progress`."""
        steps, told = start, 0.0
        self.desk.write.remote(steps=steps, total=total)

        def advance(done: int = 1, *, note: str = "") -> None:
            nonlocal steps, told
            steps += done
            if time.monotonic() - told >= EVERY or steps == total:
                told = time.monotonic()
                self.desk.write.remote(steps=steps, note=note)

        yield advance


@contextmanager
def silent(title: str, total: int | None = None, start: int = 0) -> Iterator[Advance]:
    """The progress bar of those who do not lead."""

    def advance(done: int = 1, *, note: str = "") -> None:
        pass

    yield advance


def never() -> bool:
    """Only the leader is asked whether to stop."""
    return False
