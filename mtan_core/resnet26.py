"""The ResNet-26 on which residual adapters were published (Rebuffi, Bilen, Vedaldi 2017 and 2018)."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.convs import ConvKind, make_conv
from mtan_core.norm import NormMode, TaskNorm
from mtan_core.pools import StageChannels, Tap
from mtan_core.segments import Segments

CHANNELS = (32, 64, 128, 256)  # stem, then three groups
BLOCKS = 4  # of two 3x3 convolutions, in each group


class NormedConv(nn.Module):
    """A 3x3 convolution without bias, and its batch norm."""

    def __init__(self, channels: int, out_channels: int, stride: int, norm: NormMode, conv: ConvKind) -> None:
        super().__init__()
        self.conv = make_conv(conv, channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = TaskNorm(out_channels, norm)

    def forward(self, x: Tensor, segments: Segments, relu: bool = False) -> Tensor:
        return self.norm(self.conv(x, segments), segments, relu)


class BasicBlock(nn.Module):
    """relu(x' + norm(conv(relu(norm(conv(x)))))); where the side halves, x' is x averaged over 2x2 and padded by channels of 0."""

    def __init__(self, channels: int, out_channels: int, stride: int, norm: NormMode, conv: ConvKind) -> None:
        super().__init__()
        self.stride, self.grown = stride, out_channels - channels
        self.conv1 = NormedConv(channels, out_channels, stride, norm, conv)
        self.conv2 = NormedConv(out_channels, out_channels, 1, norm, conv)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        y = self.conv2(self.conv1(x, segments, relu=True), segments)
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        if self.grown:
            x = F.pad(x, (0, 0, 0, 0, 0, self.grown))
        return (y + x).relu_()


class ResNet26(nn.Module):
    """Stem, three groups of four basic blocks, tapped after the stem and after each group; `width` multiplies all channels."""

    def __init__(self, norm: NormMode = "domain", conv: ConvKind = "shared", width: float = 1.0) -> None:
        super().__init__()
        channels = [round(width * count) for count in CHANNELS]
        self.stem = NormedConv(3, channels[0], 1, norm, conv)
        self.groups = nn.ModuleList(
            nn.ModuleList(
                BasicBlock(before if i == 0 else after, after, 2 if i == 0 else 1, norm, conv) for i in range(BLOCKS)
            )
            for before, after in pairwise(channels)
        )
        self.stages = [StageChannels(c, c) for c in channels]

    def forward(self, images: Float[Tensor, "batch 3 h w"], segments: Segments) -> list[Tap]:
        x = self.stem(images, segments, relu=True)
        taps = [Tap(x, x)]
        for group in self.groups:
            for block in group:  # type: ignore[attr-defined]
                x = block(x, segments)
            taps.append(Tap(x, x))
        return taps
