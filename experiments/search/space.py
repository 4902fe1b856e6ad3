"""Points of a space: drawn at random, all of a grid, or suggested by Optuna's TPE."""

import math
from random import Random
from typing import Any

from experiments.search.config import Dimension, Point, SearchConfig, trial_config


def active(dimension: Dimension, point: Point) -> bool:
    """Whether what a key waits for holds at a point."""
    return all(point.get(key) in values for key, values in dimension.when.items())


def base_point(search: SearchConfig) -> Point | None:
    """Where the configuration that trials begin from lies in the space: the first trial, by which to tell what others gain.

    None where the space lacks one of its values; where it is not wanted or would be the only trial; and in a grid and a population.
    """
    if not search.base_first or search.sampler == "grid" or search.scheduler.kind == "pbt" or search.trials < 2:
        return None
    values, point = trial_config(search, {}).model_dump(mode="json"), Point()
    for key, dimension in search.space.items():
        if active(dimension, point):
            point[key] = dimension.holding(_value_at(values, key))
    return None if None in point.values() else point


def _value_at(tree: Any, key: str) -> Any:
    """What a key with dots leads to; None where it leads nowhere."""
    for part in key.split("."):
        if not isinstance(tree, dict | list):
            return None
        tree = tree[int(part)] if isinstance(tree, list) else tree.get(part)
    return tree


def drawn(search: SearchConfig) -> list[Point]:
    """The points of a random search, which its seed determines, the base first."""
    random, base = Random(search.seed), base_point(search)
    first = [] if base is None else [base]
    return [*first, *(_draw(search, random) for _ in range(search.trials - len(first)))]


def _draw(search: SearchConfig, random: Random) -> Point:
    point: Point = {}
    for key, dimension in search.space.items():
        value = value_in(dimension, random)  # drawn also where it is not used, so that later draws stay what they are
        if active(dimension, point):
            point[key] = value
    return point


def value_in(dimension: Dimension, random: Random) -> Any:
    """One of a dimension's values, drawn at random."""
    if dimension.log_uniform is not None:
        low, high = map(math.log, dimension.log_uniform)
        return float(f"{math.exp(random.uniform(low, high)):.6g}")
    if dimension.uniform is not None:
        return float(f"{random.uniform(*dimension.uniform):.6g}")
    return random.choice(dimension.listed() or [])


def grid(search: SearchConfig) -> list[Point]:
    """All points of a grid; a key that is not active makes no further ones."""
    points: list[Point] = [{}]
    for key, dimension in search.space.items():
        points = [
            {**point, key: value} if value is not _ABSENT else point
            for point in points
            for value in ((dimension.listed() or []) if active(dimension, point) else [_ABSENT])
        ]
    return points


_ABSENT = object()


def points(search: SearchConfig) -> list[Point] | None:
    """The points that are known before the search; None where they depend on its results."""
    if search.sampler == "tpe":
        return None
    return drawn(search) if search.sampler == "random" else grid(search)


def enqueued(search: SearchConfig) -> list[Point]:
    """The base, where there is one, in Optuna's terms (see `suggest`)."""
    base = base_point(search)
    if base is None:
        return []
    choices = {key: search.space[key].choice or () for key in base}
    return [{key: choices[key].index(value) if choices[key] else value for key, value in base.items()}]


def suggest(trial: Any, search: SearchConfig) -> Point:
    """A point in Optuna's define-by-run form: put together as its keys become active."""
    point: Point = {}
    for key, dimension in search.space.items():
        if active(dimension, point):
            point[key] = _suggest(trial, key, dimension)
    return {"point": point}


def _suggest(trial: Any, key: str, dimension: Dimension) -> Any:
    if dimension.choice is not None:  # by place: a choice may be of lists, which Optuna does not take
        return dimension.choice[trial.suggest_categorical(key, list(range(len(dimension.choice))))]
    if dimension.integer is not None:
        return trial.suggest_int(key, *dimension.integer)
    if dimension.quantised is not None:
        low, high, step = dimension.quantised
        return trial.suggest_float(key, low, high, step=step)
    low, high = dimension.log_uniform or dimension.uniform or (0.0, 1.0)
    return trial.suggest_float(key, low, high, log=dimension.log_uniform is not None)
