"""What is seen of a search while it runs: a table on a terminal, else a line now and then; nothing on standard output."""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from experiments.search.config import Point, SearchConfig
from mtan_core.progress import progress

if TYPE_CHECKING:
    from rich.table import Table

ROWS = 20
PAUSE = 0.5  # seconds between two looks at the trials
ORDER = {"running": 0, "paused": 1, "finished": 2, "stopped": 3, "failed": 4, "waiting": 5}  # who is shown first


@dataclass(frozen=True)
class Seen:
    """A trial at this moment."""

    number: int
    status: str  # a key of ORDER
    epoch: int | None
    epochs: int | None
    metric: float | None
    point: Point

    @property
    def ended(self) -> bool:
        return self.status in ("finished", "stopped", "failed")


class Shown(Protocol):
    """What is told of all trials."""

    def __call__(self, trials: Sequence[Seen]) -> None: ...


def best_of(trials: Sequence[Seen], mode: str) -> Seen | None:
    """The best of those that have a metric, of which nothing is finite in a failing trial."""
    sign = 1 if mode == "max" else -1
    known = [trial for trial in trials if trial.metric is not None and math.isfinite(trial.metric)]
    return max(known, key=lambda trial: sign * (trial.metric or 0.0), default=None)


@contextmanager
def shown(search: SearchConfig, total: int, title: str = "search") -> Iterator[Shown]:
    """What shows the trials until the block ends."""
    if sys.stderr.isatty():
        with _table(search, total, title) as show:
            yield show
    else:
        with _lines(search, total, title) as show:
            yield show


@contextmanager
def _lines(search: SearchConfig, total: int, title: str) -> Iterator[Shown]:
    told = 0
    with progress(title, total=total) as advance:

        def show(trials: Sequence[Seen]) -> None:
            nonlocal told
            ended = sum(trial.ended for trial in trials)
            advance(ended - told, note=_note(trials, search))
            told = ended

        yield show


def _note(trials: Sequence[Seen], search: SearchConfig) -> str:
    running = sum(trial.status == "running" for trial in trials)
    best = best_of(trials, search.mode)
    told = "" if best is None else f", best {search.metric} {best.metric:.4g} (trial {best.number})"
    return f"{running} running{told}"


@contextmanager
def _table(search: SearchConfig, total: int, title: str) -> Iterator[Shown]:
    from rich.console import Console
    from rich.live import Live

    begun = time.monotonic()
    live = Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False, vertical_overflow="crop")

    def show(trials: Sequence[Seen]) -> None:
        live.update(table(trials, search, total, time.monotonic() - begun, title), refresh=True)

    with live:
        yield show


def table(trials: Sequence[Seen], search: SearchConfig, total: int, seconds: float, title: str = "search") -> "Table":
    """At most ROWS trials: those that run, then the best of those that ended."""
    from rich import box
    from rich.table import Table

    best = best_of(trials, search.mode)
    ended = sum(trial.ended for trial in trials)
    made = Table(
        title=f"{title}: {ended} of {total} trials ended, {_clock(seconds)}", box=box.SIMPLE, title_justify="left"
    )
    keys = list(dict.fromkeys(key for trial in trials for key in trial.point))
    for name in ("trial", "status", "epoch", search.metric):
        made.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    for key in keys:
        made.add_column(key.removeprefix("optimizer.").removeprefix("weighting."), justify="right", overflow="ellipsis")
    sign = -1 if search.mode == "max" else 1
    ranked = sorted(trials, key=lambda trial: (ORDER[trial.status], sign * _number(trial.metric, sign), trial.number))
    top = [best] if best is not None else []
    chosen = [*top, *(trial for trial in ranked if trial is not best)][:ROWS]
    for trial in sorted(chosen, key=lambda trial: trial.number):
        cells = (f"{'* ' if trial is best else ''}{trial.number}", trial.status, _epoch(trial), _cell(trial.metric))
        made.add_row(*cells, *(_cell(trial.point.get(key)) for key in keys), style="bold" if trial is best else None)
    if len(trials) > ROWS:
        made.caption = f"and {len(trials) - ROWS} more; * the best so far"
    return made


def _number(metric: float | None, sign: int) -> float:
    """Those without a metric come last."""
    return metric if metric is not None and math.isfinite(metric) else sign * math.inf


def _epoch(trial: Seen) -> str:
    return "" if trial.epoch is None else f"{trial.epoch}/{trial.epochs}"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@dataclass
class Board:
    """Looks at Ray's trials at most every `PAUSE` seconds."""

    show: Shown
    _looked: float = field(default=-math.inf, init=False)

    def look(self, trials: Sequence[Any], at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._looked >= PAUSE:
            self._looked = time.monotonic()
            # Ray's order changes when a trial is tried again and when a search goes on; its folder's name does not.
            self.show([seen(int(trial.storage.trial_dir_name or place), trial) for place, trial in enumerate(trials)])


def seen(number: int, trial: Any) -> Seen:
    """One of Ray's trials, in our words."""
    last: Mapping[str, Any] = trial.last_result or {}
    epoch, epochs = last.get("epoch"), last.get("epochs")
    ended = "finished" if epoch is not None and epoch == epochs else "stopped"
    words = {"RUNNING": "running", "PENDING": "waiting", "ERROR": "failed", "TERMINATED": ended}
    paused = "waiting" if epoch is None else "paused"
    point = (trial.config or {}).get("point", {})
    return Seen(number, words.get(trial.status, paused), epoch, epochs, last.get("metric"), point)
