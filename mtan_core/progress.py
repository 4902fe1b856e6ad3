"""Progress bars on standard error, so that standard output stays free for results."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol


class Advance(Protocol):
    """What `progress` yields: tell it how much was done and, if you like, what is going on."""

    def __call__(self, done: int = 1, *, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int | None = None, start: int = 0) -> Iterator[Advance]:
    """A bar with count, note, elapsed and remaining time; where standard error is no terminal, a line every ten seconds."""
    if sys.stderr.isatty():
        with _bar(title, total, start) as advance:
            yield advance
    else:
        with _lines(title, total, start) as advance:
            yield advance


@contextmanager
def late_progress(title: str, total: int, after: float = 2.0) -> Iterator[Advance]:
    """As `progress`, for work that is mostly quick: nothing is shown before `after` seconds."""
    from time import monotonic

    begun, count = monotonic(), 0
    shown: Advance | None = None
    with ExitStack() as stack:

        def advance(done: int = 1, *, note: str = "") -> None:
            nonlocal count, shown
            count += done
            if shown is not None:
                shown(done, note=note)
            elif monotonic() - begun >= after and count < total:
                shown = stack.enter_context(progress(title, total, count))

        yield advance


@contextmanager
def _bar(title: str, total: int | None, start: int) -> Iterator[Advance]:
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class WithNote(Progress):
        """The bar, and what is going on in a line of its own below it, so that it cannot crowd out the bar."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            yield from (Text(task.fields["note"], style="dim") for task in self.tasks if task.fields["note"])

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with WithNote(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, completed=start, note="")

        def advance(done: int = 1, *, note: str = "") -> None:
            changes: dict[str, Any] = {"note": note} if note else {}
            bars.update(task, advance=done, **changes)

        yield advance


@contextmanager
def _lines(title: str, total: int | None, start: int) -> Iterator[Advance]:
    from time import monotonic

    begun = spoken = monotonic()
    count = start

    def say(note: str) -> None:
        of = f"/{total}" if total is not None else ""
        print(
            f"{title}: {count}{of}, {monotonic() - begun:.0f} s{', ' + note if note else ''}",
            file=sys.stderr,
            flush=True,
        )

    def advance(done: int = 1, *, note: str = "") -> None:
        nonlocal spoken, count
        count += done
        if monotonic() - spoken >= 10:
            spoken = monotonic()
            say(note)

    yield advance
    say("done")
