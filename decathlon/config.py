"""Everything a run depends on: read from a preset or a file, changed by `--set`, written beside its checkpoints."""

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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
    model_validator,
)

from mtan_core.errors import UserError, nearest
from mtan_core.methods import methods
from mtan_core.weightings import weighting_class, weightings

POOLS = ("wrn", "resnet26")


def _names(value: Any) -> Any:
    """`a,b,c` as a list."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Share = Annotated[float, Field(ge=0, lt=1)]


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"each name once, found {', '.join(names)}")
    return names


def _known_pool(name: str) -> str:
    if name not in POOLS and not all(name.partition(":")):
        raise ValueError(
            f"expected {', '.join(POOLS)}, torchvision:NAME, timm:NAME or MODULE:CALLABLE, found '{name}'{nearest(name, POOLS)}"
        )
    return name


def _known_method(name: str) -> str:
    if name not in methods():
        raise ValueError(f"there is no method '{name}'{nearest(name, methods())}")
    return name


def _known_weighting(name: str) -> str:
    if name not in weightings():
        raise ValueError(f"there is no loss weighting '{name}'{nearest(name, weightings())}")
    return name


Names = Annotated[tuple[str, ...], BeforeValidator(_names), AfterValidator(_once)]
Part = Literal["pool", "ladder", "masks", "heads"]


class Frozen(BaseModel):
    """A table of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkConfig(Frozen):
    """The network."""

    depth: int = Field(28, ge=10, le=1000, description="depth of the Wide ResNet, 6n + 4")
    width: int = Field(4, ge=1, le=64, description="width factor of the Wide ResNet")
    nodes: Names = Field((), description="where ladders tap another pool (default: wherever its maps change in size)")
    head_pool: Literal["global", "8x8"] = Field(
        "global", description="what of the last map a head averages: all of it, or its upper left 8x8 pixels"
    )
    mask_activation: Literal["sigmoid", "softmax_channels", "softmax_pixels", "ones"] = Field(
        "sigmoid", description="activation of the masks; ones switches them off"
    )
    last_momentum: float = Field(
        0.1, gt=0, le=1, description="momentum of the pool's last batch norm (the authors': 0.9)"
    )
    init: Literal["torch", "he"] = Field(
        "torch", description="initial convolutions: torch's default, or He et al. 2015 (fan out)"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "NetworkConfig":
        if (self.depth - 4) % 6:
            raise ValueError(f"`depth` must be 6n + 4 (10, 16, 22, 28, ...), found {self.depth}")
        return self


class WeightingConfig(Frozen):
    """How the losses of the domains are combined: see docs/weightings.md."""

    kind: Annotated[str, AfterValidator(_known_weighting)] = Field(
        "equal", description="the loss weighting", json_schema_extra={"enum": [*weightings()]}
    )
    temperature: float = Field(2.0, gt=0, description="temperature of DWA")
    weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="weights of `fixed`, by domain (others 1)"
    )
    kendall: bool = Field(
        False, description="uncertainty with Kendall's own factor for classification (1 instead of 1/2)"
    )
    alpha: NonNegativeFloat = Field(1.5, description="GradNorm: how strongly rates of training are evened out")
    gamma: NonNegativeFloat = Field(1.0, description="DTP: how strongly it prefers domains that do badly")
    share: float = Field(0.1, gt=0, le=1, description="DTP: part of the present step in a domain's average accuracy")
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


class DistillationConfig(Frozen):
    """Teachers that a run learns from beside the labels (Li, Liu, Bilen 2023). Their part fades to nothing over the training."""

    teachers: Names = Field((), description="finished runs; a domain's teacher is the first that knows it")
    features: NonNegativeFloat = Field(1.0, description="weight of the features' distance to the teacher's (1 - CKA)")
    logits: NonNegativeFloat = Field(1.0, description="weight of the predictions' distance to the teacher's (KL)")
    temperature: float = Field(8.0, gt=0, description="temperature at which predictions are compared")
    weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="factors of both by domain (others 1)"
    )


class OptimizerConfig(Frozen):
    """The optimiser and its learning rate."""

    kind: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov momentum, or AdamW")
    lr: float = Field(0.1, gt=0, description="learning rate; a phase can have its own")
    momentum: Share = Field(0.9, description="momentum of SGD, first beta of AdamW")
    nesterov: bool = Field(True, description="Nesterov's form of momentum")
    weight_decay: NonNegativeFloat = Field(5e-5, description="weight decay of what domains share")
    domain_weight_decay: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="weight decay of a domain's own parameters (default: `weight_decay`)"
    )
    decay_norms: bool = Field(True, description="whether weight decay holds for biases and batch norms too")
    schedule: Literal["constant", "step", "cosine"] = Field("cosine", description="learning rate over a phase")
    warmup: NonNegativeFloat = Field(0.0, description="epochs of linear warm-up")
    step_epochs: float = Field(50.0, gt=0, description="epochs between the steps of `step`")
    step_factor: float = Field(0.5, gt=0, le=1, description="factor of each step of `step`")
    clip: NonNegativeFloat = Field(0.0, description="largest norm of the gradient; 0: not clipped")


class AugmentConfig(Frozen):
    """Random changes of training images. Mirroring happens only where a domain's spec allows it."""

    mirror: bool = Field(True, description="mirror half of the images")
    centre: Names = Field((), description="domains with centre crops in training")
    zoom: float = Field(1.0, gt=0, le=1, description="crops change in size by a random factor from here")
    zoom_out: float = Field(
        1.0, ge=1, le=4, description="to here; beyond 1 they reach over the edges, whose pixels are repeated"
    )
    shift: Share = Field(0.0, description="crops reach over the edge by up to this fraction of their side")
    contrast: Share = Field(0.0, description="contrast changes by up to this fraction")
    brightness: NonNegativeFloat = Field(0.0, description="brightness changes by up to this many standard deviations")


class CheckpointConfig(Frozen):
    """When checkpoints are written, and how many stay (the best by validation stays as well)."""

    every_epochs: PositiveInt = Field(1, description="epochs between checkpoints")
    every_steps: NonNegativeInt = Field(0, description="steps between checkpoints within an epoch; 0: none")
    keep: PositiveInt = Field(2, description="how many of the last checkpoints stay")


class PhaseConfig(Frozen):
    """A stretch of training."""

    epochs: PositiveInt = Field(description="number of epochs")
    domains: Names = Field((), description="who learns (default: all of the run)")
    lr: float | None = Field(None, gt=0, description="learning rate (default: optimizer.lr)")
    freeze: Annotated[tuple[Part, ...], BeforeValidator(_names)] = Field(
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


class RunConfig(Frozen):
    """Everything a run depends on, except the data."""

    seed: int = Field(
        0, ge=0, lt=2**63, description="determines initial weights, order, augmentation and draws of domains"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:N or mps")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0: all cores")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="fp32, or bf16 (autocast; parameters stay fp32)")
    protocol: Literal["train", "train+val"] = Field(
        "train", description="what is trained on; train+val has no validation"
    )
    domains: Names = Field((), description="domains to train (default: all in the store)")
    method: Annotated[str, AfterValidator(_known_method)] = Field(
        "mtan", description="how domains share a network, see `methods`", json_schema_extra={"enum": [*methods()]}
    )
    pool: Annotated[str, AfterValidator(_known_pool)] = Field(
        "wrn",
        description="the network that domains share: wrn (a Wide ResNet), resnet26 (of the adapter papers), "
        "torchvision:NAME, timm:NAME, or MODULE:CALLABLE of your own",
    )
    pool_from: str = Field("", description="a run whose trained pool the new one begins with (default: none)")
    norm: Literal["domain", "statistics", "shared"] = Field(
        "domain", description="what domains share of batch norms after shared convolutions"
    )
    sampling: Literal["joint", "proportional", "temperature", "round_robin", "sequential"] = Field(
        "joint", description="joint: a batch of every domain in each step; else one domain per step, drawn so"
    )
    sampling_temperature: float = Field(2.0, gt=0, description="T of temperature sampling, p ~ n^(1/T)")
    steps_per_epoch: PositiveInt | None = Field(
        None, description="steps of an epoch (default: as many as see the images of all training splits once)"
    )
    batch_size: int = Field(16, ge=2, description="images per domain in a joint step, else per step")
    accumulate: PositiveInt = Field(1, description="parts a joint step is split into, by whole domains (saves memory)")
    image_size: int = Field(72, ge=16, le=512, description="side of the squares the network sees, in pixels")
    fit: dict[str, Literal["crop", "squash"]] = Field(
        default_factory=dict, description="how a domain's images are made square (default: its spec's)"
    )
    label_smoothing: Share = Field(0.0, description="label smoothing")
    mixup: NonNegativeFloat = Field(0.0, description="alpha of mixup within a domain's batch; 0: none")
    ema: Share = Field(0.0, description="decay per step of the averaged weights that are evaluated and kept; 0: none")
    channels_last: bool = Field(True, description="memory layout of images and convolutions")
    compile: bool = Field(
        False, description="torch.compile the training step (needs a C++ compiler, and minutes at the start)"
    )
    evaluate_every: PositiveInt = Field(1, description="epochs between validations")
    stuck_epochs: PositiveInt = Field(10, description="validations at chance after which a domain is warned about")
    network: NetworkConfig = NetworkConfig()
    weighting: WeightingConfig = WeightingConfig()
    distillation: DistillationConfig = DistillationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    augment: AugmentConfig = AugmentConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    phases: tuple[PhaseConfig, ...] = Field(
        (PhaseConfig(epochs=100),), min_length=1, description="the stretches of training, in order"
    )

    @model_validator(mode="after")
    def _fits_the_method(self) -> "RunConfig":
        method = methods()[self.method]
        if method.pretrained and not self.pool_from:
            raise ValueError(f'`method = "{self.method}"` begins with a trained pool: name its run by `pool_from`')
        if method.distilled and not self.distillation.teachers:
            raise ValueError(
                f'`method = "{self.method}"` learns from teachers: name their runs by `distillation.teachers`'
            )
        if method.own_norms and self.norm != "domain":
            raise ValueError(f'`method = "{self.method}"` needs norm = "domain", found "{self.norm}"')
        return self

    @model_validator(mode="after")
    def _fits_the_weighting(self) -> "RunConfig":
        kind = self.weighting.kind
        if kind in ("equal", "fixed") or not weighting_class(kind).compares_gradients:
            return self
        told = f'`weighting.kind = "{kind}"` compares the gradients of all domains for what they share: '
        if self.sampling != "joint":
            raise ValueError(f'{told}it needs sampling = "joint", found "{self.sampling}", one domain per step')
        if self.compile:
            raise ValueError(f"{told}it takes each by a pass of its own and cannot be compiled, found compile = true")
        method = methods()[self.method]
        if method.frozen or (method.conv == "own" and not method.ladder):
            raise ValueError(f'{told}nothing shared learns with method = "{self.method}"')
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        has_masks = methods()[self.method].ladder and self.network.mask_activation != "ones"
        masks = {"masks"} if has_masks else set()
        for place, phase in enumerate(self.phases):
            if not {"pool", "ladder", "heads", *masks} - set(phase.freeze):
                raise ValueError(
                    f"`phases.{place}.freeze` must leave something to learn beside masks that are switched off"
                )
        if self.image_size % 8:
            raise ValueError(
                f"`image_size` must be a multiple of 8, as the network halves it three times, found {self.image_size}"
            )
        if self.network.head_pool == "8x8" and not 64 <= self.image_size < 128:
            raise ValueError(f'`network.head_pool = "8x8"` needs `image_size` from 64 to 127, found {self.image_size}')
        if self.accumulate > 1 and self.sampling != "joint":
            raise ValueError(f'`accumulate` splits a joint step, found sampling = "{self.sampling}"')
        if self.steps_per_epoch and self.sampling == "sequential":
            raise ValueError('`steps_per_epoch` has no meaning with sampling = "sequential", which makes whole passes')
        return self


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return sorted(
        path.name.removesuffix(".toml")
        for path in (files("decathlon") / "presets").iterdir()
        if path.name.endswith(".toml")
    )


def load_config(preset: str | None, file: Path | None, changes: Iterable[str] = ()) -> RunConfig:
    """The configuration of a preset or a file (default: the preset wrn28-4) with `key=value` changes made to it.

    Raises UserError that names every unknown key, with the near one, and every value out of range.
    """
    if preset is not None and file is not None:
        raise UserError("Expected --preset or --config, found both.")
    tree = _read(file) if file is not None else read_preset(preset or "wrn28-4")
    for change in changes:
        _set(tree, change)
    return parse_config(tree, str(file) if file else f"preset {preset or 'wrn28-4'}")


def read_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise UserError(f"--preset: there is no preset '{name}'{nearest(name, preset_names())}.")
    return tomllib.loads((files("decathlon") / "presets" / f"{name}.toml").read_text())


def parse_config(tree: Mapping[str, Any], where: str) -> RunConfig:
    """Check a tree of tables. Raises UserError with all problems at once."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as problem:
        errors = problem.errors()
        places = [error["loc"] for error in errors]
        told = [
            e for e in errors if e["type"] != "too_short" or not any(_is_within(place, e["loc"]) for place in places)
        ]
        sentences = "; ".join(_sentence(error) for error in told)
        raise UserError(f"Configuration ({where}): {sentences}.") from None


def dump_config(config: RunConfig) -> str:
    """The whole configuration as TOML, which `parse_config` reads back equal."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UserError(f"--config: expected a TOML file, found {file}: {problem}.") from None


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


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        listed = [f"phases.{error['loc'][1]}.{name}" for name in PhaseConfig.model_fields] if "phases." in key else []
        return f"there is no key '{key}'{nearest(key, [*config_keys(), *listed])}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # our own words, which say what was found
        return f"`{key}`: {message}" if key else message
    return f"`{key}`: {message}, found {error['input']!r}" if key else message


def config_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """All keys, with dots."""
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += config_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
