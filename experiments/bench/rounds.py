"""Comparing speeds fairly: the sides take turns in one run, so that what else the machine does meets all of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from statistics import median
from time import perf_counter, process_time
from typing import Any, Literal, get_args

from mtan_core.errors import UserError
from mtan_core.progress import progress

Side = Callable[[float], tuple[int, float]]  # works for at least so many seconds; returns images done and seconds taken

Clock = Literal["wall", "cpu"]

WARM_STEPS = 2  # the second still has memory mapped that the first did without; those after it find all they need


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


Make = Callable[[str, Any], Callable[[Any], Any]]  # from a side and its task to what answers its questions


@contextmanager
def in_process(make: Make, side: str, task: Any) -> Iterator[Callable[[Any], Any]]:
    """A side in a process of its own that makes `make(side, task)`: called with a question, that answers.

    Raises UserError where the system kills the process, as it does when memory runs out.
    """
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make, theirs, side, task), daemon=True)
    process.start()
    theirs.close()  # so that a side that dies is noticed as the end of its pipe

    def ask(question: Any) -> Any:
        try:
            pipe.send(question)
            return pipe.recv()
        except (EOFError, ConnectionError):
            raise _death(side, process) from None

    try:
        yield ask
        pipe.send(None)
    finally:
        pipe.close()
        process.join(timeout=5)
        process.terminate()


def _serve(make: Make, connection: Connection, side: str, task: Any) -> None:
    """Answer every question until asked None."""
    answer = make(side, task)
    with suppress(EOFError):  # who asked has given up, and has said why
        while (asked := connection.recv()) is not None:
            connection.send(answer(asked))


def _death(side: str, process: SpawnProcess) -> Exception:
    process.join(timeout=5)
    if process.exitcode is None or process.exitcode >= 0:  # a fault of ours, whose traceback it has printed
        return RuntimeError(f"{side}: its process ended with exit code {process.exitcode}")
    return UserError(
        f"{side}: expected rates from its process, found it killed by signal {-process.exitcode}, as happens when memory runs "
        f"out; fewer images need less (--batch)."
    )


def check_options(clock: str, least: Sequence[tuple[str, float, float]]) -> None:
    """Raises UserError for an unknown clock, and for the first of (option, value, least value) that is below its least."""
    if clock not in get_args(Clock):
        raise UserError(f"--clock: expected wall or cpu, found '{clock}'.")
    for name, value, low in least:
        if value < low:
            raise UserError(f"{name}: expected at least {low}, found {value}.")
