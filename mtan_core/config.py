"""What every configuration is made of: tables that refuse unknown keys, the tables that all kinds of run have, and how a
configuration is read from a preset or a file, changed by `--set`, and written beside a run's checkpoints.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from mtan_core.errors import UserError, nearest
from mtan_core.weightings import weightings


def _listed(value: Any) -> Any:
    """`a,b,c` as a list."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Listed = BeforeValidator(_listed)


Share = Annotated[float, Field(ge=0, lt=1)]


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"each name once, found {', '.join(names)}")
    return names


def _known_weighting(name: str) -> str:
    if name not in weightings():
        raise ValueError(f"there is no loss weighting '{name}'{nearest(name, weightings())}")
    return name


Names = Annotated[tuple[str, ...], Listed, AfterValidator(_once)]
Part = Literal["pool", "ladder", "masks", "heads"]


class Frozen(BaseModel):
    """A table of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: Any) -> Any:
        """In Python `true` is a 1, so that pydantic would take it for one."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and {int, float} & kinds and bool not in kinds:
            raise ValueError(f"expected a number, found {str(value).lower()}")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    inner = get_args(annotation)
    return {kind for each in inner for kind in _kinds(each)} if inner else {annotation}


class WeightingConfig(Frozen):
    """How the losses of the tasks are combined: see docs/weightings.md."""

    kind: Annotated[str, AfterValidator(_known_weighting)] = Field(
        "equal", description="the loss weighting", json_schema_extra={"enum": [*weightings()]}
    )
    temperature: float = Field(2.0, gt=0, description="temperature of DWA")
    weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="weights of `fixed`, by task (others 1)"
    )
    kendall: bool = Field(
        False, description="uncertainty with Kendall's own factor for classification (1 instead of 1/2)"
    )
    alpha: NonNegativeFloat = Field(1.5, description="GradNorm: how strongly rates of training are evened out")
    gamma: NonNegativeFloat = Field(1.0, description="DTP: how strongly it prefers tasks that do badly")
    share: float = Field(
        0.1, gt=0, le=1, description="DTP: part of the present step in a task's average of its key metric"
    )
    c: NonNegativeFloat = Field(
        0.4, description="CAGrad: how far from the mean of the gradients, relative to its length"
    )
    scale: Literal["min", "median", "rmse"] = Field(
        "min", description="Aligned-MTL: the singular value whose length all gradients get (min: the paper's)"
    )
    max_norm: NonNegativeFloat = Field(
        1.0, description="Nash-MTL: largest norm of the combined gradient; 0: not limited"
    )
    update_every: PositiveInt = Field(1, description="Nash-MTL: steps between solutions of the game")

    @model_validator(mode="after")
    def _has_a_use_for_weights(self) -> "WeightingConfig":
        if self.weights and self.kind != "fixed":
            raise ValueError(f'`weights` needs weighting.kind = "fixed", found "{self.kind}"')
        return self


class OptimizerConfig(Frozen):
    """The optimiser and its learning rate."""

    kind: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov momentum, or AdamW")
    lr: float = Field(0.1, gt=0, description="learning rate; a phase can have its own")
    momentum: Share = Field(0.9, description="momentum of SGD, first beta of AdamW")
    nesterov: bool = Field(True, description="Nesterov's form of momentum")
    weight_decay: NonNegativeFloat = Field(5e-5, description="weight decay of what domains share")
    decay_norms: bool = Field(True, description="whether weight decay holds for biases and batch norms too")
    schedule: Literal["constant", "step", "cosine"] = Field("cosine", description="learning rate over a phase")
    warmup: NonNegativeFloat = Field(0.0, description="epochs of linear warm-up")
    step_epochs: float = Field(50.0, ge=1e-3, description="epochs between the steps of `step`")
    step_factor: float = Field(0.5, gt=0, le=1, description="factor of each step of `step`")
    clip: NonNegativeFloat = Field(0.0, description="largest norm of the gradient; 0: not clipped")

    def with_decay(self, weight_decay: float | None) -> "OptimizerConfig":
        """The same with another weight decay; None changes nothing."""
        return self if weight_decay is None else self.model_copy(update={"weight_decay": weight_decay})


class CheckpointConfig(Frozen):
    """When checkpoints are written, and how many stay (the best by validation stays as well)."""

    every_epochs: PositiveInt = Field(1, description="epochs between checkpoints")
    every_steps: NonNegativeInt = Field(0, description="steps between checkpoints within an epoch; 0: none")
    keep: PositiveInt = Field(2, description="how many of the last checkpoints stay")


class PhaseConfig(Frozen):
    """A stretch of training."""

    epochs: PositiveInt = Field(description="number of epochs")
    lr: float | None = Field(None, gt=0, description="learning rate (default: optimizer.lr)")
    freeze: Annotated[tuple[Part, ...], Listed] = Field(
        (), description="parts that stand still: pool, ladder (shared convolutions), masks, heads"
    )
    shared_only: bool = Field(
        False, description="whether `freeze` spares what single domains own of pool and ladder, such as batch norms"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "PhaseConfig":
        if set(self.freeze) == set(get_args(Part)):
            raise ValueError("`freeze` must leave something to learn")
        return self


class ChangeConfig(Frozen):
    """What is otherwise from an epoch on. Nothing begins anew, unlike in a phase: the optimiser keeps its state, and the
    rate its schedule.
    """

    after: PositiveInt = Field(description="epochs of the whole training after which it holds")
    lr: float | None = Field(None, gt=0, description="`optimizer.lr`; a phase with a rate of its own keeps it")
    weight_decay: NonNegativeFloat | None = Field(None, description="`optimizer.weight_decay`")
    weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="`weighting.weights` of these tasks (`weighting.kind = fixed`)"
    )


Changes = Annotated[
    tuple[ChangeConfig, ...],
    Field(
        description="what is otherwise from an epoch on, while training goes on, such as a schedule that a search found"
    ),
]


def check_changes(changes: Sequence[ChangeConfig], epochs: int, weighting: str) -> None:
    """Raises ValueError for changes out of order, beyond the training's epochs, or of weights that nobody gives."""
    for place, change in enumerate(changes):
        earlier = changes[place - 1].after if place else 0
        if not earlier < change.after < epochs:
            raise ValueError(
                f"`changes.{place}.after`: expected changes in order, before the last of {epochs} epochs, found {change.after}"
            )
        if change.weights and weighting != "fixed":
            raise ValueError(f'`changes.{place}.weights` needs weighting.kind = "fixed", found "{weighting}"')


Config = TypeVar("Config", bound=Frozen)


@dataclass(frozen=True)
class Kind(Generic[Config]):
    """One kind of configuration: its model, the package whose folder `presets` holds its presets, and the preset that is meant
    when nobody names one.
    """

    model: type[Config]
    package: str
    default: str

    def preset_names(self) -> list[str]:
        """The presets that come with the package."""
        listed = (files(self.package) / "presets").iterdir()
        return sorted(path.name.removesuffix(".toml") for path in listed if path.name.endswith(".toml"))

    def read_preset(self, name: str) -> dict[str, Any]:
        if name not in self.preset_names():
            raise UserError(f"--preset: there is no preset '{name}'{nearest(name, self.preset_names())}.")
        return tomllib.loads((files(self.package) / "presets" / f"{name}.toml").read_text())

    def load(self, preset: str | None, file: Path | None, changes: Iterable[str] = ()) -> Config:
        """The configuration of a preset or a file (default: the default preset) with `key=value` changes made to it.

        Raises UserError that names every unknown key, with the near one, and every value out of range.
        """
        if preset is not None and file is not None:
            raise UserError("Expected --preset or --config, found both.")
        tree = (
            read_toml(file, "--config: expected a TOML file, found")
            if file is not None
            else self.read_preset(preset or self.default)
        )
        for change in changes:
            _set(tree, change)
        return self.parse(tree, str(file) if file else f"preset {preset or self.default}")

    def parse(self, tree: Mapping[str, Any], where: str) -> Config:
        """Check a tree of tables. Raises UserError with all problems at once."""
        try:
            return self.model.model_validate(tree)
        except ValidationError as problem:
            errors = problem.errors()
            places = [error["loc"] for error in errors]
            told = [
                e
                for e in errors
                if e["type"] != "too_short" or not any(_is_within(place, e["loc"]) for place in places)
            ]
            sentences = "; ".join(_sentence(error, self.model) for error in told)
            raise UserError(f"Configuration ({where}): {sentences}.") from None


def dump_config(config: Frozen) -> str:
    """The whole configuration as TOML, which is read back equal."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def read_toml(file: Path, told: str = "Expected a run's configuration, found a damaged file:") -> dict[str, Any]:
    """The tables of a file, a run's own unless it is said. Raises UserError, whose words begin as `told`, for a damaged one."""
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UserError(f"{told} {file}: {problem}.") from None


def _set(tree: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set: expected key=value, found '{change}'.")
    *path, last = key.strip().split(".")
    table: Any = tree
    for part in path:
        table = _enter(table, part, key)
    value = _value(text.strip())
    if isinstance(table, list):
        table[_place(table, last, key)] = value
    else:
        table[last] = value


def _enter(table: Any, part: str, key: str) -> Any:
    if isinstance(table, list):
        return table[_place(table, part, key)]
    inner = table.setdefault(part, {})
    if not isinstance(inner, dict | list):
        raise UserError(f"--set: expected a table at '{part}' in '{key}', found {inner!r}.")
    return inner


def _place(items: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise UserError(f"--set: expected a number below {len(items)} at '{part}' in '{key}'.")
    return int(part)


def _value(text: str) -> Any:
    """A TOML value; what is none is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _is_within(place: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    """Whether a place lies inside another. A list whose entries are refused counts as too short, which it is not."""
    return len(place) > len(outer) and place[: len(outer)] == outer


def _sentence(error: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"there is no key '{key}'{nearest(key, [*config_keys(model), *_listed_keys(model, error['loc'])])}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # our own words, which say what was found
        return f"`{key}`: {message}" if key else message
    return f"`{key}`: {message}, found {error['input']!r}" if key else message


def _listed_keys(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys of a table among several, such as `phases.0.epochs`."""
    if len(place) < 3:
        return []
    kinds = get_args(model.model_fields[str(place[0])].annotation)
    tables = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [f"{place[0]}.{place[1]}.{name}" for table in tables for name in table.model_fields]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested tables, by keys with dots."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def config_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys, with dots."""
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += config_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
