"""Pools: networks whose features all tasks share, tapped once per stage."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from mtan_core.convs import ConvKind, make_conv
from mtan_core.norm import NormMode, TaskNorm
from mtan_core.segments import Segments


class Tap(NamedTuple):
    """What a ladder takes from one stage of the pool (Liu et al. 2019, equations 1 and 2)."""

    gate: Float[Tensor, "batch gate_channels h w"]  # p: what the mask is computed from
    features: Float[Tensor, "batch channels h w"]  # u: what the mask multiplies


class StageChannels(NamedTuple):
    """The channels of one stage's tap, and how many times smaller the sides of the next stage are."""

    gate: int
    features: int
    shrink: int = 2
    round_up: bool = True  # whether a remainder makes one pixel more


class Pool(Protocol):
    """What a pool offers: its stages' channels, and a tap per stage of a joint batch."""

    stages: Sequence[StageChannels]

    def __call__(self, images: Tensor, segments: Segments) -> list[Tap]: ...


class Block(nn.Module):
    """A pre-activation residual block of two 3x3 convolutions (Zagoruyko & Komodakis 2016).

    As in the MTAN authors' code (not as in their text), a stride sits in the *second* convolution.
    """

    def __init__(
        self, channels: int, out_channels: int, stride: int, norm: NormMode, conv: ConvKind = "shared"
    ) -> None:
        super().__init__()
        self.norm1 = TaskNorm(channels, norm)
        self.conv1 = make_conv(conv, channels, out_channels, 3, padding=1)
        self.norm2 = TaskNorm(out_channels, norm)
        self.conv2 = make_conv(conv, out_channels, out_channels, 3, stride=stride, padding=1)
        reshapes = stride != 1 or channels != out_channels
        self.shortcut = make_conv(conv, channels, out_channels, 1, stride=stride) if reshapes else None

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        y = self.conv1(self.norm1(x, segments, relu=True), segments)
        y = self.conv2(self.norm2(y, segments, relu=True), segments)
        return y + (x if self.shortcut is None else self.shortcut(x, segments))


class WideResNet(nn.Module):
    """A Wide ResNet of `depth` 6n + 4 (Zagoruyko & Komodakis 2016), tapped at the stem and after each of three groups.

    The taps are the raw stem convolution, the raw outputs of groups 1 and 2, and group 3 after batch norm and ReLU.
    """

    def __init__(
        self,
        depth: int = 28,
        width: int = 4,
        norm: NormMode = "domain",
        last_momentum: float = 0.1,
        conv: ConvKind = "shared",
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"`depth` must be 6n + 4 (10, 16, 22, 28, ...). Found {depth}.")
        if width < 1:
            raise ValueError(f"`width` must be at least 1. Found {width}.")
        blocks = (depth - 4) // 6
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.stem = make_conv(conv, 3, channels[0], 3, padding=1)
        self.groups = nn.ModuleList(
            nn.ModuleList(
                Block(before if i == 0 else after, after, 2 if i == 0 else 1, norm, conv) for i in range(blocks)
            )
            for before, after in pairwise(channels)
        )
        self.last_norm = TaskNorm(channels[-1], norm, momentum=last_momentum)
        self.stages = [StageChannels(c, c) for c in channels]

    def forward(self, images: Float[Tensor, "batch 3 h w"], segments: Segments) -> list[Tap]:
        x = self.stem(images, segments)
        taps = [Tap(x, x)]
        for group in self.groups:
            for block in group:  # type: ignore[attr-defined]
                x = block(x, segments)
            taps.append(Tap(x, x))
        x = self.last_norm(x, segments, relu=True)
        return [*taps[:-1], Tap(x, x)]
