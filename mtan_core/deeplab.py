"""DeepLab v3's dilated ResNet as a pool of dense prediction, and the ladder that later benchmarks of MTAN put on it.

Pool, heads and ladder are those of Liu et al. 2022 (Auto-Lambda) and of LibMTL (Lin and Zhang 2023).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.backbone import Backbone
from mtan_core.ladder import MaskActivation, MaskedStage, fitted
from mtan_core.norm import NormMode, TaskNorm
from mtan_core.pools import StageChannels, Tap
from mtan_core.segments import Segments

LAYERS = ("layer1", "layer2", "layer3", "layer4")
OUTPUT_STRIDE = 8


def dilated_resnet50() -> nn.Module:
    """torchvision's ResNet-50 with fresh weights, whose last two layers dilate their 3x3 convolutions (by 2, 4) and keep the size."""
    from torchvision.models import resnet50

    with torch.device("cpu"):
        return resnet50(weights=None, replace_stride_with_dilation=[False, True, True])


def deeplab_head(channels: int, outputs: int) -> nn.Module:
    """torchvision's DeepLab v3 head: atrous spatial pyramid pooling (rates 12, 24, 36), a 3x3 and a 1x1 convolution."""
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    return DeepLabHead(channels, outputs)


class GatedBackbone(Backbone):
    """A residual network of `LAYERS`, tapped around the last block of each: the gate is what that reads, the features what it gives."""

    def __init__(self, module: nn.Module, norm: NormMode, size: int) -> None:
        """Raises UserError for a module that tasks cannot share, and ValueError for a layer of one block, which has no gate."""
        blocks = [len(module.get_submodule(layer)) for layer in LAYERS]  # type: ignore[arg-type]
        if min(blocks) < 2:
            raise ValueError(f"Each of {', '.join(LAYERS)} must have at least two blocks. Found {blocks}.")
        ends = zip(LAYERS, blocks, strict=True)
        super().__init__(module, [f"{layer}.{n - back}" for layer, n in ends for back in (2, 1)], norm, size)
        pairs = zip(self.stages[::2], self.stages[1::2], strict=True)
        self.stages = [StageChannels(gate.features, last.features, *last[2:]) for gate, last in pairs]

    def forward(self, images: Float[Tensor, "batch 3 h w"], segments: Segments) -> list[Tap]:
        taps = super().forward(images, segments)
        return [Tap(gate.features, last.features) for gate, last in zip(taps[::2], taps[1::2], strict=True)]


class CarryingBlock(nn.Module):
    """A residual bottleneck with a projection (He et al. 2016), through which tasks' features go to the next stage."""

    def __init__(self, channels: int, out_channels: int, norm: NormMode) -> None:
        super().__init__()
        hidden = out_channels // 4
        self.conv1, self.norm1 = nn.Conv2d(channels, hidden, 1, bias=False), TaskNorm(hidden, norm)
        self.conv2, self.norm2 = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False), TaskNorm(hidden, norm)
        self.conv3, self.norm3 = nn.Conv2d(hidden, out_channels, 1, bias=False), TaskNorm(out_channels, norm)
        self.shortcut, self.norm4 = nn.Conv2d(channels, out_channels, 1, bias=False), TaskNorm(out_channels, norm)

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Float[Tensor, "batch out h w"]:
        y = self.norm1(self.conv1(x), segments, relu=True)
        y = self.norm2(self.conv2(y), segments, relu=True)
        y = self.norm3(self.conv3(y), segments)
        return (y + self.norm4(self.shortcut(x), segments)).relu_()


class BottleneckLadder(nn.Module):
    """The ladders of all tasks over four stages: slim masks, and a residual block behind each stage but the last.

    carried = pool(f_j(mask_j(cat[gate_j, carried]) * features_j)), with the blocks f_j shared by all tasks; what the last masks
    select goes to the heads. Masks have a quarter of the channels between their convolutions. Taps are of the same images for all tasks.
    """

    def __init__(
        self, stages: Sequence[StageChannels], norm: NormMode = "domain", activation: MaskActivation = "sigmoid"
    ) -> None:
        super().__init__()
        channels = [stage.features for stage in stages]
        carried = [0, *channels[1:]]
        rows = zip(stages, carried, strict=True)
        self.stages = nn.ModuleList(MaskedStage(tap, c, activation, hidden=tap.features // 4) for tap, c in rows)
        self.blocks = nn.ModuleList(CarryingBlock(a, b, norm) for a, b in pairwise(channels))
        self.out_channels = channels[-1]

    def add_task(self, task: str) -> None:
        for stage in self.stages:
            stage.add_task(task)  # type: ignore[operator]

    def forward(self, taps: Sequence[Tap], segments: Segments) -> Float[Tensor, "batch out h w"]:
        carried = None
        for place in range(len(self.blocks)):
            carried = self._carried(place, taps, carried, segments)
        return self.stages[-1].select(taps[-1], carried, segments)  # type: ignore[operator]

    def masks(self, taps: Sequence[Tap], segments: Segments) -> list[Tensor]:
        """Every stage's masks, for looking at."""
        carried, masks = None, []
        for place, (stage, tap) in enumerate(zip(self.stages, taps, strict=True)):
            masks.append(stage.mask(tap.gate, carried, segments))  # type: ignore[operator]
            if place < len(self.blocks):
                carried = self._carried(place, taps, carried, segments)
        return masks

    def _carried(self, place: int, taps: Sequence[Tap], carried: Tensor | None, segments: Segments) -> Tensor | None:
        """What goes from this stage to the next, at the size of that."""
        stage, block = self.stages[place], self.blocks[place]
        selected = block(stage.select(taps[place], carried, segments), segments)  # type: ignore[operator]
        shrink: int = stage.tap.shrink  # type: ignore[union-attr,assignment]
        return fitted(F.max_pool2d(selected, shrink) if shrink > 1 else selected, taps[place + 1])
