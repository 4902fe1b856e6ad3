"""The networks of dense tasks on another pool than SegNet: a dilated ResNet-50, or any network by tapped nodes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from dense_tasks.networks.method import DEEPLAB, Options, Tasks
from mtan_core.backbone import Backbone
from mtan_core.backbone_source import find_module
from mtan_core.errors import UserError

if TYPE_CHECKING:
    from mtan_core.dense import DenseNetwork

DEEPLAB_PROBE = 64  # side of the images by which the dilated ResNet-50 is looked at
SIZE = (224, 224)  # where nothing tells what images there will be


def hard_sharing(tasks: Tasks, options: Options) -> "DenseNetwork":
    from mtan_core.dense_backbone import SharedBackbone

    return SharedBackbone(tasks, open_pool(options), *_head(options))


def cross_stitch(tasks: Tasks, options: Options) -> "DenseNetwork":
    from dense_tasks.networks.segnet_cross_stitch import Stitch
    from mtan_core.dense_backbone import StitchedBackbones

    pools = [open_pool(options) for _ in tasks]
    stitches = [Stitch(len(tasks), options) for _ in pools[0].stages[1:]]
    return StitchedBackbones(tasks, pools, stitches, *_head(options))


def mtan(tasks: Tasks, options: Options) -> "DenseNetwork":
    from mtan_core.deeplab import BottleneckLadder, GatedBackbone, dilated_resnet50
    from mtan_core.dense_backbone import MaskedBackbone
    from mtan_core.ladder import Ladder

    if options.pool == DEEPLAB:
        gated = GatedBackbone(dilated_resnet50(), "shared", DEEPLAB_PROBE)
        ladder = BottleneckLadder(gated.stages, options.norm, options.mask_activation)
        return MaskedBackbone(tasks, gated, ladder, *_head(options))
    pool = open_pool(options)
    return MaskedBackbone(tasks, pool, Ladder(pool.stages, options.norm, options.mask_activation), *_head(options))


def open_pool(options: Options) -> Backbone:
    """The network that is tapped, with weights of its own; one set of batch norms, as all tasks see the same images.

    Raises UserError for one that is not there, that cannot be shared, or that takes no images of the size.
    """
    from mtan_core.deeplab import LAYERS, dilated_resnet50

    if options.pool == DEEPLAB:
        return Backbone(dilated_resnet50(), LAYERS, "shared", DEEPLAB_PROBE)
    size = options.size or SIZE
    pool = Backbone(find_module(options.pool), options.nodes, "shared", min(size), "the images' smaller side")
    _refuse_size(pool, size)
    return pool


@torch.no_grad()
def _refuse_size(pool: Backbone, size: tuple[int, int]) -> None:
    """Raises UserError where the network takes squares only, by which it was looked at."""
    if size[0] == size[1]:
        return
    from mtan_core.dense import whole

    training, images = pool.training, torch.zeros(1, 3, *size, device="cpu")
    try:
        pool.eval()(images, whole(images))
    except Exception as problem:  # whatever a stranger's network may do
        told = (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip(".")[:300]
        raise UserError(
            f"`pool`: expected a network for images of {size[0]}x{size[1]} pixels, found one that fails: {told}."
        ) from None
    pool.train(training)


def _head(options: Options) -> tuple[Callable[[int, int], nn.Module], int]:
    """How a head is made of channels and outputs, and what the sides of images must be multiples of."""
    from mtan_core.deeplab import OUTPUT_STRIDE, deeplab_head

    return (deeplab_head, OUTPUT_STRIDE) if options.pool == DEEPLAB else (_fcn_head, 1)


def _fcn_head(channels: int, outputs: int) -> nn.Module:
    """torchvision's FCN head: a 3x3 convolution to a quarter of the channels, batch norm, ReLU, a 1x1 convolution."""
    from torchvision.models.segmentation.fcn import FCNHead

    return FCNHead(channels, outputs)
