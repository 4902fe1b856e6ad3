"""Everything a Decathlon run depends on: read from a preset or a file, changed by `--set`, written beside its checkpoints."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, model_validator

from mtan_core import config as core
from mtan_core.config import CheckpointConfig, Frozen, Names, Share, WeightingConfig, dump_config
from mtan_core.errors import nearest
from mtan_core.methods import methods
from mtan_core.weightings import weighting_class

__all__ = ["RunConfig", "config_keys", "dump_config", "load_config", "parse_config", "preset_names", "read_preset"]

POOLS = ("wrn", "resnet26")


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


class DistillationConfig(Frozen):
    """Teachers that a run learns from beside the labels (Li, Liu, Bilen 2023). Their part fades to nothing over the training."""

    teachers: Names = Field((), description="finished runs; a domain's teacher is the first that knows it")
    features: NonNegativeFloat = Field(1.0, description="weight of the features' distance to the teacher's (1 - CKA)")
    logits: NonNegativeFloat = Field(1.0, description="weight of the predictions' distance to the teacher's (KL)")
    temperature: float = Field(8.0, gt=0, description="temperature at which predictions are compared")
    weights: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="factors of both by domain (others 1)"
    )


class OptimizerConfig(core.OptimizerConfig):
    """The optimiser and its learning rate."""

    domain_weight_decay: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="weight decay of a domain's own parameters (default: `weight_decay`)"
    )


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


class PhaseConfig(core.PhaseConfig):
    """A stretch of training."""

    domains: Names = Field((), description="who learns (default: all of the run)")


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
    changes: core.Changes = ()

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
        if self.network.nodes and self.pool in POOLS:
            raise ValueError(
                f'`network.nodes` are of a network that is tapped, found pool = "{self.pool}", whose are its own'
            )
        if self.network.head_pool == "8x8" and not 64 <= self.image_size < 128:
            raise ValueError(f'`network.head_pool = "8x8"` needs `image_size` from 64 to 127, found {self.image_size}')
        core.check_changes(self.changes, sum(phase.epochs for phase in self.phases), self.weighting.kind)
        if self.accumulate > 1 and self.sampling != "joint":
            raise ValueError(f'`accumulate` splits a joint step, found sampling = "{self.sampling}"')
        if self.steps_per_epoch and self.sampling == "sequential":
            raise ValueError('`steps_per_epoch` has no meaning with sampling = "sequential", which makes whole passes')
        return self


KIND = core.Kind(RunConfig, "decathlon", "wrn28-4")
preset_names, read_preset = KIND.preset_names, KIND.read_preset
load_config, parse_config = KIND.load, KIND.parse


def config_keys() -> list[str]:
    """All keys, with dots."""
    return core.config_keys(RunConfig)
