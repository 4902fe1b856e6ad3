"""SegNet (Badrinarayanan, Kendall, Cipolla 2017): an encoder and a decoder that puts values back where they were largest."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.norm import NormMode, TaskNorm
from mtan_core.pools import StageChannels, Tap
from mtan_core.segments import Segments
from mtan_core.winograd import WinogradConv

FILTERS = (64, 128, 256, 512, 512)


class Pooled(NamedTuple):
    """A 2x2 max-pooled map, and where each value stood in the map (flat, as `max_unpool2d` wants it)."""

    values: Float[Tensor, "batch channels h w"]
    places: Int64[Tensor, "batch channels h w"]


class ConvNorm(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: NormMode) -> None:
        super().__init__()
        self.conv = WinogradConv(inputs, outputs, 3, padding=1)
        self.norm = TaskNorm(outputs, norm)

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Float[Tensor, "batch out h w"]:
        return self.norm(self.conv(x), segments, relu=True)


class SegNetStage(nn.Module):
    """The convolutions between two changes of size; `channels` are those before and after each of them."""

    def __init__(self, channels: Sequence[int], norm: NormMode = "shared") -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvNorm(before, after, norm) for before, after in pairwise(channels))

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Tap:
        """The gate is what the first convolution gives, the features are what the last gives."""
        gate = x = self.convs[0](x, segments)
        for conv in self.convs[1:]:
            x = conv(x, segments)
        return Tap(gate, x)


class SegNet(nn.Module):
    """The pool of dense prediction: five stages down, each max-pooled by 2, and five up, unpooled by the indices.

    `filters` are the stages' channels from full resolution down. Stages have two convolutions at the two finest
    resolutions and three below; `deep` doubles them. `wider` multiplies the channels that stages read (but not the first),
    for networks that concatenate something to them.
    """

    def __init__(
        self, filters: Sequence[int] = FILTERS, norm: NormMode = "shared", deep: bool = False, wider: int = 1
    ) -> None:
        super().__init__()
        if len(filters) < 2 or min(filters) < 1:
            raise ValueError(f"`filters` must be at least two positive numbers of channels. Found {tuple(filters)}.")
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for place, channels in enumerate(filters):
            convs = (2 if place < 2 else 3) * (2 if deep else 1)
            above = filters[max(place - 1, 0)]
            self.encoder.append(SegNetStage([3 if place == 0 else wider * above, *[channels] * convs], norm))
            self.decoder.append(SegNetStage([wider * channels, *[above] * convs], norm))
        self.filters = tuple(filters)
        self.stages = [StageChannels(channels, channels) for channels in filters]
        # as they are run, the deepest first; the gate of a decoder stage is its unpooled input
        self.decoder_stages = [StageChannels(f, filters[max(i - 1, 0)]) for i, f in enumerate(filters)][::-1]

    @property
    def divisor(self) -> int:
        """What the sides of images must be multiples of."""
        return 2 ** len(self.filters)

    @property
    def last_conv(self) -> nn.Conv2d:
        """The convolution that everything passes last."""
        return self.decoder[0].convs[-1].conv  # type: ignore[union-attr,index]

    def forward(self, images: Float[Tensor, "batch 3 h w"], segments: Segments) -> tuple[list[Tap], list[Tap]]:
        """The taps of the encoder, from the finest, and of the decoder, from the deepest."""
        taps, places, x = [], [], images
        for stage in self.encoder:
            taps.append(stage(x, segments))
            x, indices = pool(taps[-1].features)
            places.append(indices)
        decoded = []
        for stage in reversed(self.decoder):
            gate = unpool(x, places.pop())
            x = stage(gate, segments).features
            decoded.append(Tap(gate, x))
        return taps, decoded


def pool(features: Float[Tensor, "batch channels h w"]) -> Pooled:
    """2x2 max-pooling that remembers where the values stood."""
    return Pooled(*F.max_pool2d(features, 2, return_indices=True))


def unpool(
    values: Float[Tensor, "batch channels h w"], places: Int64[Tensor, "batch channels h w"]
) -> Float[Tensor, "batch channels h2 w2"]:
    """Values of twice the size, zero but at `places`."""
    with torch.autocast(values.device.type, enabled=False):  # it would go through fp32, though nothing is computed
        return F.max_unpool2d(values, places, [2, 2])


def concatenated(
    own: Float[Tensor, "batch a h w"], beside: Float[Tensor, "batch b h w"]
) -> Float[Tensor, "batch channels h w"]:
    """Two maps of one size, channel after channel."""
    return torch.cat([own, beside], 1)
