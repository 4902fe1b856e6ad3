"""The one number that a search goes by, from the rows of an epoch's metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dense_tasks.metrics import Measure, delta_mtl
from mtan_core.errors import UserError, nearest

NOT_MEASURES = ("epoch", "step", "domain", "task", "lr")
KEYS = ("val_accuracy", "val_key_metric")  # what mean_accuracy is the mean of, in classification and in dense tasks
Row = Mapping[str, Any]


@dataclass(frozen=True)
class References:
    """What the metric compares with: see `experiments.search.references`, which finds it before Ray starts."""

    errors: Mapping[str, float] = field(default_factory=dict)  # baseline error fractions by domain
    single: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # single-task measures by task
    tasks: Mapping[str, tuple[Measure, ...]] = field(default_factory=dict)  # the measures that count, by task


def measures(rows: Sequence[Row]) -> dict[str, float]:
    """All numbers of an epoch as MEASURE.TASK."""
    task = "domain" if rows and "domain" in rows[0] else "task"
    return {
        f"{name}.{row[task]}": value
        for row in rows
        for name, value in row.items()
        if name not in NOT_MEASURES and value is not None
    }


def value_of(metric: str, found: Mapping[str, float], references: References) -> float | None:
    """The metric of an epoch's measures; None after an epoch without validation.

    Raises UserError for a measure that is not there.
    """
    validated = {name: value for name, value in found.items() if name.rpartition(".")[0] in KEYS}
    if not validated:
        return None
    if metric == "mean_accuracy":
        return sum(validated.values()) / len(validated)
    if metric == "delta_mtl":
        own = {
            task: {name: found[f"val_{name}.{task}"] for name in names if f"val_{name}.{task}" in found}
            for task, names in ((task, [measure.name for measure in each]) for task, each in references.tasks.items())
        }
        return delta_mtl(own, references.single, references.tasks)
    if metric == "decathlon_score":
        from decathlon.scoring import decathlon_score

        return decathlon_score(
            {name.partition(".")[2]: 1 - value for name, value in validated.items()}, references.errors
        )
    if metric not in found:
        raise UserError(f"`metric`: there is no measure '{metric}'{nearest(metric, found)}.")
    return found[metric]
