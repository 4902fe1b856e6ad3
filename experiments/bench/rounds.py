"""Comparing speeds fairly: the sides take turns in one run, so that what else the machine does meets all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Any, Literal

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


def take_turns(sides: Mapping[str, Side], rounds: int, seconds: float, title: str) -> dict[str, Rates]:
    """Each side once to warm up, then `rounds` times in turn (A B C A B C ...), each time for at least `seconds`."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    with progress(title, (rounds + 1) * len(sides)) as advance:
        for number in range(rounds + 1):
            for name, side in sides.items():
                images, taken = side(seconds if number else 0.0)
                if number:
                    values[name].append(images / taken)
                advance(note=f"{name}: {images / taken:.1f} images/s")
    return {name: Rates(tuple(rates)) for name, rates in values.items()}
