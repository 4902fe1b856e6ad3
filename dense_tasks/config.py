"""Everything a dense run depends on: read from a preset or a file, changed by `--set`, written beside its checkpoints."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, model_validator

from dense_tasks.datasets import DATASETS
from dense_tasks.networks import methods, unsuited
from dense_tasks.networks.method import DEEPLAB, SEGNET
from mtan_core import config as core
from mtan_core.config import (
    CheckpointConfig,
    Frozen,
    Listed,
    Names,
    OptimizerConfig,
    Share,
    WeightingConfig,
    dump_config,
)
from mtan_core.errors import nearest

__all__ = ["RunConfig", "config_keys", "dump_config", "load_config", "parse_config", "preset_names"]


def _known_method(name: str) -> str:
    if name not in methods():
        raise ValueError(f"there is no method '{name}'{nearest(name, methods())}")
    return name


def _known_pool(name: str) -> str:
    own = (SEGNET, DEEPLAB)
    if name not in own and not all(name.partition(":")):
        raise ValueError(
            f"expected {', '.join(own)}, torchvision:NAME, timm:NAME or MODULE:CALLABLE, found '{name}'{nearest(name, own)}"
        )
    return name


def _known_dataset(name: str) -> str:
    if name and name not in DATASETS:
        raise ValueError(f"there is no data set '{name}'{nearest(name, DATASETS)}")
    return name


class NetworkConfig(Frozen):
    """The network. What is not given is the sensible choice, or with `paper` the authors'."""

    paper: bool = Field(False, description="as in the authors' code, odd as it may be")
    filters: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Listed] = Field(
        (),
        max_length=8,
        description="SegNet's channels by stage, from full resolution down (default: the method's own)",
    )
    nodes: Names = Field(
        (),
        description="where torchvision:NAME, timm:NAME or MODULE:CALLABLE is tapped (default: wherever its maps change in size)",
    )
    mask_activation: Literal["sigmoid", "softmax_channels", "softmax_pixels", "ones"] | None = Field(
        None, description="activation of the masks; ones switches them off"
    )
    stitches: Literal["matrix", "row"] | None = Field(
        None, description="cross-stitch: matrix: a mix for each task; row: one mix for all, as the authors"
    )
    stitch_start: float | None = Field(None, description="cross-stitch: a stream's share in its own mix at the start")
    spare_block: bool | None = Field(None, description="dense: the authors' block that nothing reads")
    wide_block: bool | None = Field(None, description="dense: the authors' finest decoder, wide for one convolution")

    def options(self) -> dict[str, Any]:
        """What is given of the network's options."""
        given = self.model_dump(exclude={"paper", "filters", "nodes"}, exclude_none=True)
        return {**given, **({"filters": self.filters} if self.filters else {})}


class AugmentConfig(Frozen):
    """Random views of training images, with their labels as geometry wants it. Off, as in the paper, unless switched on."""

    scales: Annotated[tuple[Annotated[float, Field(ge=1, le=4)], ...], Listed] = Field(
        (1.0,), min_length=1, description="each image is seen at one of these scales, through a window of its size"
    )
    mirror: bool = Field(False, description="mirror half of the images")


class DenseOptimizerConfig(OptimizerConfig):
    """The optimiser and its learning rate."""

    kind: Literal["sgd", "adamw"] = Field("adamw", description="SGD with Nesterov momentum, or AdamW")
    lr: float = Field(1e-4, gt=0, description="learning rate; a phase can have its own")
    weight_decay: NonNegativeFloat = Field(0.0, description="weight decay")
    schedule: Literal["constant", "step", "cosine"] = Field("constant", description="learning rate over a phase")


class PhaseConfig(Frozen):
    """A stretch of training."""

    epochs: PositiveInt = Field(description="number of epochs")
    lr: float | None = Field(None, gt=0, description="learning rate (default: optimizer.lr)")


class RunConfig(Frozen):
    """Everything a dense run depends on, except the data."""

    seed: int = Field(
        0, ge=0, lt=2**63, description="determines initial weights, order, augmentation and drawn weights"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:N or mps")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0: all cores")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="fp32, or bf16 (autocast; parameters stay fp32)")
    dataset: Annotated[str, AfterValidator(_known_dataset)] = Field(
        "", description="what the files mean, where the root does not tell (default: nyuv2)"
    )
    tasks: Names = Field((), description="tasks to learn (default: all that the data set has)")
    missing_labels: bool = Field(False, description="allow images without a task's file")
    method: Annotated[str, AfterValidator(_known_method)] = Field(
        "mtan", description="how tasks share a network, see `methods`", json_schema_extra={"enum": [*methods()]}
    )
    pool: Annotated[str, AfterValidator(_known_pool)] = Field(
        SEGNET,
        description="the network that tasks share, or have one of each: segnet, deeplab-resnet50, torchvision:NAME, timm:NAME, or "
        "MODULE:CALLABLE of your own",
    )
    norm: Literal["domain", "statistics", "shared"] = Field(
        "domain", description="what tasks share of batch norms that see each task's features apart"
    )
    batch_size: int = Field(2, ge=2, description="images per step")
    steps_per_epoch: PositiveInt | None = Field(None, description="steps of an epoch (default: one pass)")
    ema: Share = Field(0.0, description="decay per step of the averaged weights that are evaluated and kept; 0: none")
    channels_last: bool = Field(True, description="memory layout of images and convolutions")
    metric: Literal["whole-set", "legacy", "legacy-defined"] = Field(
        "whole-set", description="how segmentation is measured in validation, see docs/dense-tasks.md"
    )
    evaluate_every: PositiveInt = Field(1, description="epochs between validations")
    network: NetworkConfig = NetworkConfig()
    weighting: WeightingConfig = WeightingConfig()
    optimizer: DenseOptimizerConfig = DenseOptimizerConfig()
    augment: AugmentConfig = AugmentConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    phases: tuple[PhaseConfig, ...] = Field(
        (PhaseConfig(epochs=200),), min_length=1, description="the stretches of training, in order"
    )
    changes: core.Changes = ()

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if self.network.filters and len(self.network.filters) < 2:
            raise ValueError(f"`network.filters` must be at least two numbers, found {self.network.filters}")
        core.check_changes(self.changes, sum(phase.epochs for phase in self.phases), self.weighting.kind)
        if self.pool == SEGNET or methods()[self.method].on_backbone:
            self._refuse_options_of_other_pools()
            return self
        raise ValueError(unsuited(self.method, self.pool))

    def _refuse_options_of_other_pools(self) -> None:
        if self.network.filters and self.pool != SEGNET:
            raise ValueError(f"`network.filters` are those of segnet, found `pool` {self.pool}")
        if self.network.nodes and self.pool in (SEGNET, DEEPLAB):
            raise ValueError(
                f"`network.nodes` are those of torchvision:NAME, timm:NAME or MODULE:CALLABLE, found `pool` {self.pool}"
            )


KIND = core.Kind(RunConfig, "dense_tasks", "segnet")
preset_names, load_config, parse_config = KIND.preset_names, KIND.load, KIND.parse


def config_keys() -> list[str]:
    """All keys, with dots."""
    return core.config_keys(RunConfig)
