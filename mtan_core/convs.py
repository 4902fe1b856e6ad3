"""Convolutions of a pool that several tasks run through: shared, each task's own, or shared with a task's own part.

The parts are those of the Decathlon's literature. A convolution of any kind is called with a joint batch and its segments;
what belongs to one task alone lies under `own.<task>`. Parts that a paper adds to a pretrained pool begin as the identity,
so that a task starts from the pool as it is.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mtan_core.segments import Segments
from mtan_core.winograd import WinogradConv

ConvKind = Literal["shared", "own", "series", "parallel", "low_rank", "piggyback", "controllers"]


class SharedConv(WinogradConv):
    """A convolution whose filters all tasks share."""

    def add_task(self, task: str) -> None:
        """A new task needs nothing of its own here."""

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class OwnConv(nn.Module):
    """A convolution of which every task has its own ("scratch", "finetune": as many networks as tasks)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, **options: Any) -> None:
        super().__init__()
        self.shape, self.options = (inputs, outputs, kernel), options
        self.own = nn.ModuleDict()

    def add_task(self, task: str) -> None:
        self.own[task] = nn.Conv2d(*self.shape, **self.options)

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Tensor:
        parts = zip(segments.split(x), segments.tasks, strict=True)
        return _joined([self.own[task](part) for part, task in parts])


class AdaptedConv(SharedConv):
    """A shared convolution with a small part of each task's own."""

    def __init__(self, inputs: int, outputs: int, kernel: int, **options: Any) -> None:
        super().__init__(inputs, outputs, kernel, **options)
        self.own = nn.ModuleDict()

    def own_convs(self, segments: Segments) -> list[nn.Conv2d]:
        return [self.own[task] for task in segments.tasks]  # type: ignore[misc]


class SeriesConv(AdaptedConv):
    """Series residual adapter: y + A_t y behind the shared convolution, A_t a 1x1 convolution (Rebuffi et al. 2017)."""

    def add_task(self, task: str) -> None:
        self.own[task] = _zero(nn.Conv2d(self.out_channels, self.out_channels, 1, bias=False))

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Tensor:  # type: ignore[override]
        y = super().forward(x, segments)
        return y + pointwise([y], segments, self.own_convs(segments))


class ParallelConv(AdaptedConv):
    """Parallel residual adapter: f * x + A_t x, A_t a 1x1 convolution of the same stride (Rebuffi et al. 2018, equation 2)."""

    def add_task(self, task: str) -> None:
        self.own[task] = _zero(nn.Conv2d(self.in_channels, self.out_channels, 1, bias=False))

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Tensor:  # type: ignore[override]
        return super().forward(x, segments) + pointwise([self.strided(x)], segments, self.own_convs(segments))

    def strided(self, x: Tensor) -> Tensor:
        """The pixels that a 1x1 convolution of this stride reads."""
        down, across = self.stride
        return x if down == across == 1 else x[:, :, ::down, ::across]


class LowRankConv(ParallelConv):
    """Parallel residual adapter of low rank: A_t = B_t C_t, with `rank` channels between (Rebuffi et al. 2018, section 3.2)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rank: float = 0.25, **options: Any) -> None:
        """`rank` is a fraction of the smaller number of channels; a quarter halves the cost of an adapter."""
        super().__init__(inputs, outputs, kernel, **options)
        self.rank = max(1, round(rank * min(inputs, outputs)))

    def add_task(self, task: str) -> None:
        self.own[task] = nn.ModuleDict({
            "down": nn.Conv2d(self.in_channels, self.rank, 1, bias=False),
            "up": _zero(nn.Conv2d(self.rank, self.out_channels, 1, bias=False)),
        })  # fmt: skip

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Tensor:  # type: ignore[override]
        down, up = ([self.own[task][part] for task in segments.tasks] for part in ("down", "up"))  # type: ignore[index]
        between = pointwise([self.strided(x)], segments, down)
        return SharedConv.forward(self, x, segments) + pointwise([between], segments, up)


class ControllerConv(AdaptedConv):
    """Deep Adaptation Network: each task's filters are its own linear combinations of the shared ones.

    Rosenfeld and Tsotsos 2018. C_t (f * x) + b_t is the same as convolving with the combined filters. C_t begins as the
    identity; the bias b_t is each task's own, so the shared filters have none.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True, **options: Any) -> None:
        super().__init__(inputs, outputs, kernel, bias=False, **options)
        self.own_bias = bias

    def add_task(self, task: str) -> None:
        own = nn.Conv2d(self.out_channels, self.out_channels, 1, bias=self.own_bias)
        with torch.no_grad():
            own.weight.copy_(torch.eye(self.out_channels)[:, :, None, None])
            if own.bias is not None:
                own.bias.zero_()
        self.own[task] = own

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Tensor:  # type: ignore[override]
        return pointwise([super().forward(x, segments)], segments, self.own_convs(segments))


class Scores(nn.Module):
    """The real-valued scores behind a task's binary mask of weights."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full_like(like, PiggybackConv.START))


class PiggybackConv(AdaptedConv):
    """Binary masks on the shared weights, one per task, learnt by the straight-through estimator (Mallya et al. 2018).

    A weight counts where its score exceeds the threshold; the gradient of the mask is taken for that of the score.
    """

    START, THRESHOLD = 0.01, 0.005  # section 4 of the paper

    def add_task(self, task: str) -> None:
        self.own[task] = Scores(self.weight.detach())

    def forward(self, x: Float[Tensor, "batch _ h w"], segments: Segments) -> Tensor:  # type: ignore[override]
        parts = zip(segments.split(x), segments.tasks, strict=True)
        return _joined([self._conv_forward(part, self.masked(task), self.bias) for part, task in parts])

    def masked(self, task: str) -> Tensor:
        """The weights that a task's mask leaves."""
        return self.weight * _Step.apply(self.own[task].weight, self.THRESHOLD)


class _Step(torch.autograd.Function):
    """1 above the threshold, else 0; its gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, threshold: float) -> Tensor:
        return (scores > threshold).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


KINDS: dict[ConvKind, type[SharedConv | OwnConv]] = {
    "shared": SharedConv, "own": OwnConv, "series": SeriesConv, "parallel": ParallelConv, "low_rank": LowRankConv,
    "piggyback": PiggybackConv, "controllers": ControllerConv,
}  # fmt: skip


def make_conv(kind: ConvKind, inputs: int, outputs: int, kernel: int, **options: Any) -> SharedConv | OwnConv:
    """A convolution of that kind. Adapters stand beside 3x3 filters only: beside a 1x1 convolution one would repeat it."""
    if kernel == 1 and kind in ("series", "parallel", "low_rank"):
        kind = "shared"
    return KINDS[kind](inputs, outputs, kernel, **options)


def pointwise(
    inputs: Sequence[Float[Tensor, "_ _ h w"]], segments: Segments, convs: Sequence[nn.Conv2d]
) -> Float[Tensor, "batch channels h w"]:
    """Apply each task's own 1x1 convolution `convs[d]` to its stretch of the channel-wise concatenation of `inputs`.

    Tasks with equally many images run as one batched matrix product; the concatenation is never made, as
    W [a; b] = W_a a + W_b b. Either all of `convs` have a bias or none. An input may have the rows of one stretch only, where
    all tasks look at the same images; it is not repeated then.
    """
    if not segments.equal:
        joined = torch.cat(list(inputs), dim=1) if len(inputs) > 1 else inputs[0]
        return torch.cat([conv(part) for part, conv in zip(segments.split(joined), convs, strict=True)])
    batch, (height, width) = sum(segments.sizes), inputs[0].shape[2:]
    weights = torch.stack([conv.weight.flatten(1) for conv in convs]).transpose(1, 2)  # (tasks, in, out)
    biases = [conv.bias for conv in convs if conv.bias is not None]
    bias = torch.stack(biases).unsqueeze(1) if biases else None
    made: list[Tensor] = []
    for x, weight in zip(inputs, weights.split([x.shape[1] for x in inputs], dim=1), strict=True):
        pixels = x.permute(0, 2, 3, 1).reshape(-1, segments.sizes[0] * height * width, x.shape[1])
        if not made and len(pixels) < len(convs):
            made.append(_of_shared_pixels(pixels[0], weight, bias))
            continue
        pixels = pixels.expand(len(convs), -1, -1)  # (tasks, images * h * w, in)
        if not made:
            made.append(torch.bmm(pixels, weight) if bias is None else torch.baddbmm(bias, pixels, weight))
        else:  # in place: what the sum was before is needed by no gradient; autocast leaves such operations alone
            made[0].baddbmm_(pixels.to(made[0].dtype), weight.to(made[0].dtype))
    return made[0].view(batch, height, width, -1).permute(0, 3, 1, 2)


def _of_shared_pixels(
    pixels: Float[Tensor, "pixels inputs"], weight: Float[Tensor, "tasks inputs outputs"], bias: Tensor | None
) -> Float[Tensor, "tasks pixels outputs"]:
    """All tasks' products with pixels that all of them look at."""
    kind = pixels.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else pixels.dtype
    shift = None if bias is None else bias.squeeze(1).to(dtype)
    made: Tensor = _SharedPixels.apply(pixels.to(dtype), weight.to(dtype), shift)
    return made


class _SharedPixels(torch.autograd.Function):
    """Each task's matrix by itself: a batched product would copy the pixels for every task, and transposed in its backward."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(pixels, weight)
        ctx.biased = bias is not None
        made = pixels.new_empty(len(weight), len(pixels), weight.shape[2])
        for task, matrix in enumerate(weight):
            if bias is None:
                torch.mm(pixels, matrix, out=made[task])
            else:
                torch.addmm(bias[task], pixels, matrix, out=made[task])
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        pixels, weight = ctx.saved_tensors
        to_weight = torch.stack([pixels.T @ own for own in gradient])
        to_pixels = gradient[0] @ weight[0].T
        for own, matrix in zip(gradient[1:], weight[1:], strict=True):
            to_pixels.addmm_(own, matrix.T)
        return to_pixels, to_weight, gradient.sum(1) if ctx.biased else None


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    return conv


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
