"""Schedules of population based training: which keys may change while training goes on, how they are changed, and the
configuration that makes the same changes again.
"""

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any, TypedDict

from experiments.search.config import Dimension, Point, SearchConfig, total_epochs, trial_config
from experiments.search.space import value_in
from mtan_core.errors import UserError

KEYS = {
    "optimizer.lr": "lr",
    "optimizer.weight_decay": "weight_decay",
}  # and what a change in a configuration calls them
WEIGHT = "weighting.weights."


class Exchange(TypedDict):
    """A trial went on as a copy of another one, with other values."""

    epoch: int  # after which
    source: int  # the number of the trial that was copied
    trial: int  # and of the one that goes on as its copy
    before: Point
    after: Point


def check_population(search: SearchConfig) -> None:
    """Raises UserError for what population based training cannot do with a training."""
    if search.scheduler.kind != "pbt":
        return
    for key, dimension in search.space.items():
        if key not in KEYS and not key.startswith(WEIGHT):
            raise UserError(
                f"`space.{key}`: population based training changes values while training goes on, which only "
                f"{', '.join(KEYS)} and {WEIGHT}TASK allow; a network, its data and its steps stay what they began as."
            )
        if dimension.when:
            raise UserError(f"`space.{key}.when`: expected none with population based training, which keeps its keys.")
    base, interval = trial_config(search, {}), search.scheduler.interval
    if interval >= total_epochs(base):
        raise UserError(
            f"`scheduler.interval`: expected less than the {total_epochs(base)} epochs of a trial, found {interval}."
        )
    for key, every in (
        ("evaluate_every", base.evaluate_every),
        ("checkpoint.every_epochs", base.checkpoint.every_epochs),
    ):
        if interval % every:
            raise UserError(f"`scheduler.interval`: expected a multiple of `{key}` = {every}, found {interval}.")
    if "optimizer.lr" in search.space and all(phase.lr is not None for phase in base.phases):
        raise UserError("`space.optimizer.lr`: expected a phase without a rate of its own, which it would not change.")
    ends = [{key: dimension.ends()[place] for key, dimension in search.space.items()} for place in (0, -1)]
    trial_config(
        search, ends[0], changes_of([Exchange(epoch=interval, source=0, trial=0, before=ends[0], after=ends[1])])
    )


def changes_of(lineage: Iterable[Exchange]) -> list[dict[str, Any]]:
    """The `changes` of a training's configuration, which make an ancestry's values hold from its epochs on."""
    return [{"after": exchange["epoch"], **_change(exchange["before"], exchange["after"])} for exchange in lineage]


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    other = {key: value for key, value in after.items() if value != before[key]}
    weights = {key.removeprefix(WEIGHT): value for key, value in other.items() if key.startswith(WEIGHT)}
    return {KEYS[key]: value for key, value in other.items() if key in KEYS} | ({"weights": weights} if weights else {})


def first_point(point: Point, lineage: Sequence[Exchange]) -> Point:
    """Where the oldest ancestor began."""
    return lineage[0]["before"] if lineage else point


def explored(search: SearchConfig, point: Point, random: Random) -> Point:
    """A copied trial's values: each drawn anew, or moved, and never out of its range."""
    options = search.scheduler
    return {
        key: value_in(search.space[key], random)
        if random.random() < options.resample
        else _moved(search.space[key], value, options.factors, random)
        for key, value in point.items()
    }


def _moved(dimension: Dimension, value: Any, factors: Sequence[float], random: Random) -> Any:
    """A neighbour where values are listed, else the value times one of the factors."""
    listed = dimension.listed()
    if listed is not None:
        place = listed.index(value) + random.choice((-1, 1))
        return listed[min(max(place, 0), len(listed) - 1)]
    low, high = dimension.ends()
    return float(f"{min(max(value * random.choice(factors), low), high):.6g}")
