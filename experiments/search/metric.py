"""The one number that a search goes by, from the rows of an epoch's metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtan_core.errors import UserError, nearest

NOT_MEASURES = ("epoch", "step", "domain", "task", "lr")
KEYS = ("val_accuracy", "val_key_metric")  # what mean_accuracy is the mean of, in classification and in dense tasks
Row = Mapping[str, Any]


def measures(rows: Sequence[Row]) -> dict[str, float]:
    """All numbers of an epoch as MEASURE.TASK."""
    task = "domain" if rows and "domain" in rows[0] else "task"
    return {
        f"{name}.{row[task]}": value
        for row in rows
        for name, value in row.items()
        if name not in NOT_MEASURES and value is not None
    }


def value_of(metric: str, found: Mapping[str, float], baselines: Mapping[str, float]) -> float | None:
    """The metric of an epoch's measures; None after an epoch without validation.

    `baselines` are the error fractions of domains for the Decathlon score. Raises UserError for a measure that is not there.
    """
    validated = {name: value for name, value in found.items() if name.rpartition(".")[0] in KEYS}
    if not validated:
        return None
    if metric == "mean_accuracy":
        return sum(validated.values()) / len(validated)
    if metric == "decathlon_score":
        from decathlon.scoring import decathlon_score

        return decathlon_score({name.partition(".")[2]: 1 - value for name, value in validated.items()}, baselines)
    if metric not in found:
        raise UserError(f"`metric`: there is no measure '{metric}'{nearest(metric, found)}.")
    return found[metric]
