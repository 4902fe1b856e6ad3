"""What is searched, how, and by what measure: the search's configuration, checked as a whole before Ray starts."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from decathlon.config import KIND as DECATHLON
from dense_tasks.config import KIND as DENSE
from experiments.cluster.resources import ResourcesConfig
from mtan_core import config as core
from mtan_core.config import Frozen
from mtan_core.errors import UserError

NAMED = ("decathlon_score", "mean_accuracy", "delta_mtl")  # metrics over all tasks
Point = dict[str, Any]  # values by key of the training's configuration
Value = bool | int | float | str | list[Any]


class Dimension(Frozen):
    """The values that one key of the training's configuration can take: exactly one of the five kinds."""

    log_uniform: tuple[PositiveFloat, PositiveFloat] | None = Field(None, description="[low, high], even in logarithm")
    uniform: tuple[float, float] | None = Field(None, description="[low, high]")
    integer: tuple[int, int] | None = Field(None, description="[low, high], both included")
    quantised: tuple[float, float, PositiveFloat] | None = Field(None, description="[low, high, step]")
    choice: tuple[Value, ...] | None = Field(None, description="one of these")
    when: dict[str, tuple[Value, ...]] = Field(
        default_factory=dict, description="only where these keys, declared before, have one of these values"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        kinds = ("log_uniform", "uniform", "integer", "quantised", "choice")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(kinds)}, found {', '.join(given) or 'none'}")
        values = getattr(self, given[0])
        if given[0] == "choice" and not values:
            raise ValueError("`choice`: expected at least one value, found none")
        if given[0] != "choice" and values[0] >= values[1]:
            raise ValueError(f"`{given[0]}`: expected the lower end first, found {list(values)}")
        return self

    def listed(self) -> list[Any] | None:
        """All values, None where they are a continuum."""
        if self.choice is not None:
            return list(self.choice)
        if self.integer is not None:
            return list(range(self.integer[0], self.integer[1] + 1))
        if self.quantised is not None:
            low, high, step = self.quantised
            return [round(low + place * step, 12) for place in range(int((high - low) / step + 1e-9) + 1)]
        return None

    def holding(self, value: Any) -> Any:
        """The value itself, as it is written here; None where it is not one of the dimension's."""
        if self.choice is not None:
            return next(
                (each for each in self.choice if each == value and isinstance(each, bool) == isinstance(value, bool)),
                None,
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if (listed := self.listed()) is not None:
            return next((each for each in listed if math.isclose(each, value)), None)
        low, high = self.ends()
        return value if low <= value <= high else None

    def ends(self) -> list[Any]:
        """The values that are tried on the training's configuration before anything starts."""
        values = self.log_uniform or self.uniform or self.integer or self.listed()
        assert values is not None
        return list(values)


class SchedulerConfig(Frozen):
    """Which trials are stopped before their last epoch, or go on as copies of others."""

    kind: Literal["asha", "median", "pbt", "none"] = Field(
        "none", description="asha, median (stopping rule), pbt (population based training), or none"
    )
    grace: PositiveInt = Field(1, description="epochs that every trial is given")
    reduction: int = Field(3, ge=2, description="asha: one trial in so many goes on at each rung")
    interval: PositiveInt = Field(1, description="pbt: epochs between exchanges")
    quantile: float = Field(
        0.25, gt=0, le=0.5, description="pbt: part of the trials that become copies, and that are copied"
    )
    resample: float = Field(
        0.25, ge=0, le=1, description="pbt: how often a copy's value is drawn anew, else it is moved"
    )
    factors: tuple[PositiveFloat, ...] = Field(
        (0.8, 1.25), min_length=1, description="pbt: by one of which it is moved"
    )


class SearchConfig(Frozen):
    """A search over configurations of one task."""

    task: Literal["decathlon", "dense"] = Field("decathlon", description="decathlon or dense")
    preset: str | None = Field(None, description="the preset that trials begin from (default: the task's)")
    config: str | None = Field(None, description="or a configuration file, relative to the search's own")
    set: tuple[str, ...] = Field((), description="changes to it, as KEY=VALUE")
    space: dict[str, Dimension] = Field(description="what is searched: keys of the training's configuration")
    sampler: Literal["random", "grid", "tpe"] = Field("random", description="random, grid, or tpe (Optuna's)")
    base_first: bool = Field(
        True,
        description="random and tpe, not pbt: the first trial has the values of the preset or file, where the space has them all",
    )
    scheduler: SchedulerConfig = SchedulerConfig()
    metric: str = Field(
        "mean_accuracy",
        description="decathlon_score, mean_accuracy, delta_mtl, or MEASURE.TASK as in metrics.parquet, e.g. val_accuracy.svhn",
    )
    baselines: tuple[str, ...] = Field(
        (), description="delta_mtl: finished single-task runs to compare with, relative to the search's own file"
    )
    mode: Literal["max", "min"] = Field("max", description="whether the metric is to be large or small")
    trials: PositiveInt = Field(20, description="number of trials; a grid has as many as it has points")
    seconds: PositiveFloat | None = Field(None, description="time after which a trial is stopped (default: none)")
    resources: ResourcesConfig = ResourcesConfig()
    concurrency: NonNegativeInt = Field(0, description="trials at once; 0: as many as the resources allow")
    retries: NonNegativeInt = Field(1, description="how often a failing trial is tried again")
    seed: int = Field(0, ge=0, lt=2**32, description="determines what is drawn")

    @model_validator(mode="after")
    def _goes_by_a_metric(self) -> "SearchConfig":
        if self.metric == "decathlon_score" and self.task != "decathlon":
            raise ValueError(f'`metric = "decathlon_score"` needs task = "decathlon", found "{self.task}"')
        if self.metric not in NAMED and "." not in self.metric:
            raise ValueError(f"`metric`: expected {', '.join(NAMED)} or MEASURE.TASK, found {self.metric!r}")
        if (self.metric == "delta_mtl") != bool(self.baselines):
            found = f"metric {self.metric!r} and {len(self.baselines)} of them"
            raise ValueError(f'`baselines`: expected single-task runs with metric = "delta_mtl" alone, found {found}')
        if self.metric in NAMED and self.mode == "min":
            raise ValueError(f'`mode`: {self.metric} is to be large, found "min"')
        return self

    @model_validator(mode="after")
    def _has_a_population(self) -> "SearchConfig":
        if self.scheduler.kind == "pbt" and self.sampler == "tpe":
            raise ValueError('`sampler`: population based training begins with "random" or "grid", found "tpe"')
        if self.scheduler.kind == "pbt" and self.sampler == "random" and self.trials < 2:
            raise ValueError(f"`trials`: population based training needs at least 2, found {self.trials}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "SearchConfig":
        if not self.space:
            raise ValueError("`space`: expected at least one key to search over, found none")
        before: set[str] = set()
        for key, dimension in self.space.items():
            if self.sampler == "grid" and dimension.listed() is None:
                raise ValueError(f'`space.{key}`: sampler = "grid" needs choice, integer or quantised')
            if unknown := [other for other in dimension.when if other not in before]:
                raise ValueError(f"`space.{key}.when`: expected a key declared before it, found {unknown[0]!r}")
            before.add(key)
        return self


KIND = core.Kind(SearchConfig, "experiments.search", "")


def training_kind(search: SearchConfig) -> "core.Kind[Any]":
    """The kind of configuration that a trial trains."""
    return DECATHLON if search.task == "decathlon" else DENSE


def read_search(file: Path) -> SearchConfig:
    """A search's configuration, its file of the training's made absolute. Raises UserError with all that is wrong."""
    search = KIND.load(None, file)
    if search.config is not None:
        search = search.model_copy(update={"config": str((file.parent / search.config).absolute())})
        if not Path(str(search.config)).is_file():
            raise UserError(f"`config`: expected a configuration file, found none: {search.config}.")
    runs = tuple(str((file.parent / run).absolute()) for run in search.baselines)
    search = search.model_copy(update={"baselines": runs})
    from experiments.search.schedules import check_population

    check_space(search)
    check_population(search)
    return search


def check_space(search: SearchConfig) -> None:
    """Raises UserError for a key or a value that the training's configuration refuses, or that validates nothing."""
    base = trial_config(search, {})
    if getattr(base, "protocol", "train") != "train":
        raise UserError(f'`protocol`: a search needs a validation (protocol "train"), found "{base.protocol}".')
    for key, dimension in search.space.items():
        needed = {other: values[0] for other, values in _conditions(search, key).items()}
        for value in dimension.ends():
            try:
                trial_config(search, {**needed, key: value})
            except UserError as problem:
                raise UserError(f"`space.{key}`: {problem}") from None


def _conditions(search: SearchConfig, key: str) -> dict[str, tuple[Value, ...]]:
    """What a key waits for, and what those keys wait for in turn."""
    found: dict[str, tuple[Value, ...]] = {}
    for other, values in search.space[key].when.items():
        found |= {**_conditions(search, other), other: values}
    return found


def trial_config(search: SearchConfig, point: Point, later: Sequence[Mapping[str, Any]] = ()) -> Any:
    """The training's configuration at a point of the space, with `later` as its `changes`; its threads are the trial's CPUs."""
    file = Path(search.config) if search.config is not None else None
    threads = max(1, int(search.resources.cpus))
    changes = [*search.set, f"threads={threads}", *(f"{key}={toml_value(value)}" for key, value in point.items())]
    if later:
        changes.append(f"changes={toml_value(later)}")
    return training_kind(search).load(search.preset, file, changes)


def total_epochs(settings: Any) -> int:
    """The epochs of a training of either kind."""
    return sum(phase.epochs for phase in settings.phases)


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)  # numbers, strings, true and false are written alike in both
