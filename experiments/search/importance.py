"""Which keys of a search's space its metric depends on: fANOVA (Hutter, Hoos, Leyton-Brown, ICML 2014), as Optuna has it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.search.config import Dimension, Point, SearchConfig

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 15  # trials; with fewer, forests find structure in noise


def importances(search: SearchConfig, points: Sequence[Point], metrics: Sequence[float]) -> dict[str, float]:
    """The share of the metric's variance that each key explains, the greatest first; only of keys that every point has.

    Empty for fewer than `FEWEST` points and for a metric that is everywhere the same.
    """
    keys = [key for key in search.space if all(point.get(key) is not None for point in points)]
    if len(points) < FEWEST or len(set(metrics)) < 2 or not keys:
        return {}
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if search.mode == "max" else "minimize")
    distributions = {key: _distribution(search.space[key]) for key in keys}
    for point, metric in zip(points, metrics, strict=True):
        params = {key: _place(search.space[key], point[key]) for key in keys}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=metric))
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=search.seed % 2**31)))


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choice is not None:
        return CategoricalDistribution(range(len(dimension.choice)))
    if dimension.integer is not None:
        return IntDistribution(*dimension.integer)
    if dimension.quantised is not None:
        low, high, step = dimension.quantised
        return FloatDistribution(low, high, step=step)
    low, high = dimension.log_uniform or dimension.uniform or (0.0, 1.0)
    return FloatDistribution(low, high, log=dimension.log_uniform is not None)


def _place(dimension: Dimension, value: object) -> object:
    """Choices count by their place, as they may be lists (which tables hold as text)."""
    if dimension.choice is None:
        return value
    return next(place for place, each in enumerate(dimension.choice) if each == value or str(each) == str(value))
