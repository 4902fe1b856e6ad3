"""Ladders: for each task, soft attention masks that select from the pool (Liu et al. 2019, section 3.2)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.convs import pointwise
from mtan_core.norm import NormMode, OwnNorm, TaskNorm, own_norms
from mtan_core.pools import StageChannels, Tap
from mtan_core.segments import Segments
from mtan_core.winograd import WinogradConv

MaskActivation = Literal["sigmoid", "softmax_channels", "softmax_pixels", "ones"]


class Mask(nn.Module):
    """One task's mask at one stage: 1x1 conv, batch norm, ReLU, 1x1 conv, batch norm (the activation is the stage's).

    `hidden`: the channels between the convolutions (default: as many as there are to mask).
    """

    def __init__(self, gate_channels: int, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or channels
        self.conv1 = nn.Conv2d(gate_channels, hidden, 1)
        self.norm1 = OwnNorm(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 1)
        self.norm2 = OwnNorm(channels)


class MaskedStage(nn.Module):
    """All tasks' masks at one stage. `carried_channels` is 0 where nothing came before; for `hidden` see `Mask`.

    `activation`: "sigmoid" (the paper); the softmaxes over channels or pixels show why not; "ones" switches the masks off
    (an ablation). A tap may have the rows of the joint batch, or those of the images that all tasks look at.
    """

    def __init__(
        self,
        tap: StageChannels,
        carried_channels: int,
        activation: MaskActivation = "sigmoid",
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.tap, self.carried_channels, self.activation, self.hidden = tap, carried_channels, activation, hidden
        self.masks = nn.ModuleDict()

    def add_task(self, task: str) -> None:
        self.masks[task] = Mask(self.tap.gate + self.carried_channels, self.tap.features, self.hidden)

    def select(self, tap: Tap, carried: Tensor | None, segments: Segments) -> Float[Tensor, "batch channels h w"]:
        """What each task's mask leaves of the features."""
        if self.activation == "ones":
            return repeated(tap.features, segments)
        mask = self.mask(tap.gate, carried, segments)
        if len(mask) == len(tap.features):
            return mask * tap.features
        return _Select.apply(mask.unflatten(0, (len(segments.tasks), -1)), tap.features).flatten(0, 1)

    def mask(
        self, gate: Float[Tensor, "rows gate h w"], carried: Tensor | None, segments: Segments
    ) -> Float[Tensor, "batch channels h w"]:
        """Each task's mask for its own images: values in [0, 1] per channel and pixel."""
        own: list[Mask] = [self.masks[task] for task in segments.tasks]  # type: ignore[misc]
        seen = [gate] if carried is None else [gate, carried]
        hidden = pointwise(seen, segments, [mask.conv1 for mask in own])
        hidden = own_norms(hidden, segments, [mask.norm1 for mask in own], relu=True)
        hidden = pointwise([hidden], segments, [mask.conv2 for mask in own])
        return self.activate(own_norms(hidden, segments, [mask.norm2 for mask in own], relu=False))

    def activate(self, logits: Tensor) -> Tensor:
        """Masks out of what the last batch norm gives."""
        if self.activation == "softmax_channels":
            return logits.softmax(1)
        if self.activation == "softmax_pixels":
            return logits.flatten(2).softmax(2).view_as(logits)
        return logits.sigmoid()


class _Select(torch.autograd.Function):
    """Masks of several tasks (tasks, batch, channels, h, w) times the same features (batch, channels, h, w).

    The gradient of the features is summed over the tasks as it is made, without a product for each of them in memory.
    """

    @staticmethod
    def forward(ctx: Any, masks: Tensor, features: Tensor) -> Tensor:
        ctx.save_for_backward(masks, features)
        return masks * features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        masks, features = ctx.saved_tensors
        to_features = gradient[0] * masks[0]
        for part, mask in zip(gradient[1:], masks[1:], strict=True):
            to_features.addcmul_(part, mask)
        return gradient * features, to_features


class AttentionStage(MaskedStage):
    """A stage on the way down: the masks, and the convolution `f` that carries what they selected to the next.

    What is carried on is pooled to the `shrink`-th part of its side.
    """

    def __init__(
        self,
        tap: StageChannels,
        carried_channels: int,
        out_channels: int,
        norm: NormMode,
        activation: MaskActivation = "sigmoid",
        shrink: int = 1,
    ) -> None:
        super().__init__(tap, carried_channels, activation)
        self.shrink = shrink
        self.conv = WinogradConv(tap.features, out_channels, 3, padding=1)
        self.norm = TaskNorm(out_channels, norm)

    def forward(self, tap: Tap, carried: Tensor | None, segments: Segments) -> Float[Tensor, "batch out h w"]:
        selected = self.select(tap, carried, segments)
        if self.shrink == 1:
            return self.norm(self.conv(selected), segments, relu=True)
        # pooling first is the same, and leaves fewer values to rectify
        return self.pooled(self.norm(self.conv(selected), segments)).relu_()

    def pooled(self, carried: Float[Tensor, "batch out h w"]) -> Float[Tensor, "batch out _ _"]:
        """Max-pooled to the size of the next stage."""
        return F.max_pool2d(carried, self.shrink, ceil_mode=self.tap.round_up)


class UpwardStage(MaskedStage):
    """A stage on the way up: what is carried is enlarged and passes `f`, then helps to make the mask of the decoder's features."""

    def __init__(
        self, tap: StageChannels, carried_channels: int, norm: NormMode, activation: MaskActivation = "sigmoid"
    ) -> None:
        super().__init__(tap, tap.features, activation)
        self.conv = WinogradConv(carried_channels, tap.features, 3, padding=1)
        self.norm = TaskNorm(tap.features, norm)

    def forward(
        self, tap: Tap, carried: Float[Tensor, "batch _ _ _"], segments: Segments
    ) -> Float[Tensor, "batch channels h w"]:
        return self.select(tap, self.enlarged(tap, carried, segments), segments)

    def enlarged(
        self, tap: Tap, carried: Float[Tensor, "batch _ _ _"], segments: Segments
    ) -> Float[Tensor, "batch channels h w"]:
        """`f` of what is carried, at the size of the tap."""
        larger = F.interpolate(carried, size=tap.gate.shape[2:], mode="bilinear", align_corners=True)
        return self.norm(self.conv(larger), segments, relu=True)


class Ladder(nn.Module):
    """The encoder ladders of all tasks over a pool: carried = pool2x2(f_j(mask_j(cat[gate_j, carried]) * features_j))."""

    def __init__(
        self, stages: Sequence[StageChannels], norm: NormMode = "domain", activation: MaskActivation = "sigmoid"
    ) -> None:
        super().__init__()
        channels = [stage.features for stage in stages]
        outputs = [*channels[1:], channels[-1]]
        carried = [0, *outputs[:-1]]
        shrinks = [*(stage.shrink for stage in stages[:-1]), 1]
        rows = zip(stages, carried, outputs, shrinks, strict=True)
        self.stages = nn.ModuleList(AttentionStage(tap, c, out, norm, activation, by) for tap, c, out, by in rows)
        self.out_channels = outputs[-1]

    def add_task(self, task: str) -> None:
        for stage in self.stages:
            stage.add_task(task)  # type: ignore[operator]

    def forward(self, taps: Sequence[Tap], segments: Segments) -> Float[Tensor, "batch out h w"]:
        carried = None
        for stage, tap in zip(self.stages, taps, strict=True):
            carried = stage(tap, fitted(carried, tap), segments)
        assert carried is not None
        return carried

    def masks(self, taps: Sequence[Tap], segments: Segments) -> list[Tensor]:
        """Every stage's masks, for looking at."""
        carried: Tensor | None = None
        masks = []
        for stage, tap in zip(self.stages, taps, strict=True):
            carried = fitted(carried, tap)
            masks.append(stage.mask(tap.gate, carried, segments))  # type: ignore[operator]
            carried = stage(tap, carried, segments)
        return masks


class DenseLadder(nn.Module):
    """The ladders of all tasks down an encoder and up its decoder, over taps of the same images for all tasks.

    Liu et al. 2019, section 3.2 and figure 2. Down: carried = pool2x2(f_j(mask_j(cat[gate_j, carried]) * features_j)), at every
    stage; up: carried = mask_j(cat[gate_j, f_j(up2x2(carried))]) * features_j, bilinear with aligned corners. The `f_j` are
    shared by all tasks. All tasks run together: the joint batch holds every image once for each of them.
    """

    def __init__(
        self,
        down: Sequence[StageChannels],
        up: Sequence[StageChannels],
        norm: NormMode = "domain",
        activation: MaskActivation = "sigmoid",
    ) -> None:
        super().__init__()
        channels = [stage.features for stage in down]
        outputs = [*channels[1:], channels[-1]]
        rows = zip(down, [0, *outputs[:-1]], outputs, strict=True)
        self.stages = nn.ModuleList(AttentionStage(tap, c, out, norm, activation, tap.shrink) for tap, c, out in rows)
        carried = [outputs[-1], *(stage.features for stage in up[:-1])]
        self.upward = nn.ModuleList(UpwardStage(tap, c, norm, activation) for tap, c in zip(up, carried, strict=True))
        self.out_channels = up[-1].features

    def add_task(self, task: str) -> None:
        """Give a new task its masks and what else it does not share."""
        for stage in (*self.stages, *self.upward):
            stage.add_task(task)
            stage.norm.add_task(task)

    def forward(self, down: Sequence[Tap], up: Sequence[Tap], segments: Segments) -> Float[Tensor, "batch out h w"]:
        """What the last masks select; `segments` gives every task all images."""
        carried = None
        for stage, tap in zip((*self.stages, *self.upward), (*down, *up), strict=True):
            carried = stage(tap, carried, segments)
        assert carried is not None
        return carried

    def masks(self, down: Sequence[Tap], up: Sequence[Tap], segments: Segments) -> list[Tensor]:
        """Every stage's masks, for looking at."""
        carried: Tensor | None = None
        masks = []
        for stage, tap in zip((*self.stages, *self.upward), (*down, *up), strict=True):
            seen = stage.enlarged(tap, carried, segments) if isinstance(stage, UpwardStage) else carried  # type: ignore[arg-type]
            masks.append(stage.mask(tap.gate, seen, segments))
            carried = stage(tap, carried, segments)
        return masks


def repeated(rows: Float[Tensor, "images _ h w"], segments: Segments) -> Float[Tensor, "batch _ h w"]:
    """Rows that all tasks look at, once for each task; rows of a joint batch as they are."""
    return rows if len(rows) == sum(segments.sizes) else torch.cat([rows] * len(segments.tasks))


def fitted(carried: Float[Tensor, "batch _ _ _"] | None, tap: Tap) -> Float[Tensor, "batch _ h w"] | None:
    """What is carried at the size of the tap, which differs by a pixel where a network rounds sizes otherwise."""
    if carried is None or carried.shape[2:] == tap.gate.shape[2:]:
        return carried
    return F.adaptive_max_pool2d(carried, tap.gate.shape[2:])
