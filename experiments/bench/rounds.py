"""Comparing speeds fairly: the sides take turns in one run, so that what else the machine does meets all of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter, process_time
from typing import Any, Literal, get_args

from mtan_core.errors import UserError
from mtan_core.progress import progress

Side = Callable[[float], tuple[int, float]]  # works for at least so many seconds; returns images done and seconds taken

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True)
class Rates:
    """Images per second of one side, one value per round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def to_dict(self) -> dict[str, Any]:
        return {"images_per_second": self.median, "lowest": min(self.values), "highest": max(self.values)}


def lasting(step: Callable[[], int], clock: Clock = "wall") -> Side:
    """A side out of a step that returns its number of images: steps are repeated, at least one.

    With the clock "cpu" all seconds are processor time of this process, which other processes disturb less; it says
    what a step costs only if one thread does it.
    """
    now = process_time if clock == "cpu" else perf_counter

    def side(seconds: float) -> tuple[int, float]:
        images, begun = 0, now()
        while True:
            images += step()
            taken = now() - begun
            if taken >= seconds:
                return images, taken

    return side


def take_turns(
    sides: Mapping[str, Side], rounds: int, seconds: float, title: str, warm: bool = False
) -> dict[str, Rates]:
    """Each side once to warm up, unless they come `warm`, then `rounds` times in turn (A B C A B C ...), each time for at
    least `seconds`."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    with progress(title, (rounds + (not warm)) * len(sides)) as advance:
        for number in range(warm, rounds + 1):
            for name, side in sides.items():
                images, taken = side(seconds if number else 0.0)
                if number:
                    values[name].append(images / taken)
                advance(note=f"{name}: {images / taken:.1f} images/s")
    return {name: Rates(tuple(rates)) for name, rates in values.items()}


Serve = Callable[[Connection, str, Any], None]  # a side's process: answers every question until asked None


@contextmanager
def in_processes(serve: Serve, sides: Sequence[str], task: Any) -> Iterator[dict[str, Callable[[Any], Any]]]:
    """The sides, each in a process of its own that runs `serve(connection, side, task)`: called with a question, they answer."""
    context = get_context("spawn")
    pipes: dict[str, Connection] = {}
    started = []
    try:
        for side in sides:
            pipes[side], theirs = context.Pipe()
            started.append(context.Process(target=serve, args=(theirs, side, task), daemon=True))
            started[-1].start()
            theirs.close()  # so that a side that dies is noticed as the end of its pipe
        yield {side: _asker(pipe) for side, pipe in pipes.items()}
        for pipe in pipes.values():
            pipe.send(None)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in started:
            process.join(timeout=5)
            process.terminate()


def _asker(pipe: Connection) -> Callable[[Any], Any]:
    def ask(question: Any) -> Any:
        pipe.send(question)
        return pipe.recv()

    return ask


def check_options(clock: str, least: Sequence[tuple[str, float, float]]) -> None:
    """Raises UserError for an unknown clock, and for the first of (option, value, least value) that is below its least."""
    if clock not in get_args(Clock):
        raise UserError(f"--clock: expected wall or cpu, found '{clock}'.")
    for name, value, low in least:
        if value < low:
            raise UserError(f"{name}: expected at least {low}, found {value}.")
