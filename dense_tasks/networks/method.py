"""What distinguishes one network of dense tasks from another, and the options of all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # the list of methods is there without torch
    from mtan_core.dense import DenseNetwork, Initialisation
    from mtan_core.ladder import MaskActivation
    from mtan_core.norm import NormMode

Tasks = Mapping[str, int]  # output channels by task
Stitches = Literal["matrix", "row"]
SEGNET, DEEPLAB = "segnet", "deeplab-resnet50"


@dataclass(frozen=True)
class Options:
    """How a network is built. Where the authors' networks look odd, the default is the sensible choice and `paper` theirs.

    `pool`: what tasks share, or have one of each: "segnet", "deeplab-resnet50" (dilated, with heads of atrous spatial pyramid
    pooling), "torchvision:NAME", "timm:NAME" or "MODULE:CALLABLE". The last three are tapped at `nodes` (see `Backbone`) and
    looked at for images of `size` (height, width; None: 224x224).
    `filters`: SegNet's channels by stage from full resolution down; None: the method's own.
    `norm`: what tasks share of the batch norms behind the ladders' shared convolutions, see `NormMode`; the authors
    share all. `mask_activation`: see `MaskedStage`.
    `stitches`: "matrix": every stream gets its own mix of all streams, as Misra et al. 2016; "row": all streams get the
    same mix, as the authors. `stitch_start`: the share of a stream in its own mix to begin with, the others share the
    rest; None: every weight begins at 1 (the authors), so that the sum of all streams goes on.
    `spare_block`: whether Dense keeps the authors' finest shared decoder block, which nothing reads; it has as many
    channels as the first task. `wide_block`: whether the first convolution of Dense's finest decoder blocks keeps the
    concatenation's width, as the authors' does, and the others' do not.
    `initialisation`: of SegNet's convolutions; the authors' differ between networks. Other pools keep the weights that they
    come with, and what stands on them begins as torch begins.
    """

    pool: str = SEGNET
    nodes: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    filters: tuple[int, ...] | None = None
    norm: "NormMode" = "domain"
    mask_activation: "MaskActivation" = "sigmoid"
    stitches: Stitches = "matrix"
    stitch_start: float | None = 0.9
    spare_block: bool = False
    wide_block: bool = False
    initialisation: "Initialisation" = "xavier_normal"


@dataclass(frozen=True)
class DenseMethod:
    """A network, by name.

    `build` makes it on SegNet of tasks and options whose `filters` are set, `on_backbone` on any other pool, where it can.
    `paper`: the options of the authors' network. `one_task`: whether every task has such a network to itself, side by side.
    `published_multiple`: parameters for the three NYUv2 tasks over those of one single-task network, in the paper.
    """

    name: str
    summary: str
    source: str
    build: "Callable[[Tasks, Options], DenseNetwork]"
    on_backbone: "Callable[[Tasks, Options], DenseNetwork] | None" = None
    filters: tuple[int, ...] = (64, 128, 256, 512, 512)
    paper: Mapping[str, Any] = field(default_factory=dict)
    one_task: bool = False
    published_multiple: float | None = None
