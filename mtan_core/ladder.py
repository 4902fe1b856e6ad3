"""Ladders: for each task, soft attention masks that select from the pool (Liu et al. 2019, section 3.2)."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.convs import pointwise
from mtan_core.norm import NormMode, OwnNorm, TaskNorm, own_norms
from mtan_core.pools import StageChannels, Tap
from mtan_core.segments import Segments

MaskActivation = Literal["sigmoid", "softmax_channels", "softmax_pixels", "ones"]


class Mask(nn.Module):
    """One task's mask at one stage: 1x1 conv, batch norm, ReLU, 1x1 conv, batch norm (the activation is the stage's)."""

    def __init__(self, gate_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(gate_channels, channels, 1)
        self.norm1 = OwnNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.norm2 = OwnNorm(channels)


class AttentionStage(nn.Module):
    """All tasks' masks at one stage, and the convolution `f` that carries what they selected to the next.

    `carried_channels` is 0 at the first stage; what is carried on is pooled to the `shrink`-th part of its side.
    `activation`: "sigmoid" (the paper); the softmaxes over channels or pixels show why not; "ones" switches the masks off
    (an ablation).
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
        super().__init__()
        self.tap, self.carried_channels, self.activation, self.shrink = tap, carried_channels, activation, shrink
        self.masks = nn.ModuleDict()
        self.conv = nn.Conv2d(tap.features, out_channels, 3, padding=1)
        self.norm = TaskNorm(out_channels, norm)

    def add_task(self, task: str) -> None:
        self.masks[task] = Mask(self.tap.gate + self.carried_channels, self.tap.features)

    def forward(self, tap: Tap, carried: Tensor | None, segments: Segments) -> Float[Tensor, "batch out h w"]:
        selected = tap.features
        if self.activation != "ones":
            selected = self.mask(tap.gate, carried, segments) * tap.features
        if self.shrink == 1:
            return self.norm(self.conv(selected), segments, relu=True)
        # pooling first is the same, and leaves fewer values to rectify
        return self.pooled(self.norm(self.conv(selected), segments)).relu_()

    def pooled(self, carried: Float[Tensor, "batch out h w"]) -> Float[Tensor, "batch out _ _"]:
        """Max-pooled to the size of the next stage."""
        return F.max_pool2d(carried, self.shrink, ceil_mode=self.tap.round_up)

    def mask(
        self, gate: Float[Tensor, "batch gate h w"], carried: Tensor | None, segments: Segments
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
            carried = stage(tap, carried, segments)
        assert carried is not None
        return carried

    def masks(self, taps: Sequence[Tap], segments: Segments) -> list[Tensor]:
        """Every stage's masks, for looking at."""
        carried: Tensor | None = None
        masks = []
        for stage, tap in zip(self.stages, taps, strict=True):
            masks.append(stage.mask(tap.gate, carried, segments))  # type: ignore[operator]
            carried = stage(tap, carried, segments)
        return masks
