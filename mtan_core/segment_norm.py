"""Batch normalisation of every stretch of a joint batch by its own statistics, with the rectifier in the same pass."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mtan_core.parallel import Group, differentiable_total


def segment_norm(
    features: Float[Tensor, "batch channels h w"],
    sizes: Sequence[int],
    weight: Float[Tensor, "tasks channels"],
    bias: Float[Tensor, "tasks channels"],
    eps: float,
    relu: bool,
) -> tuple[Float[Tensor, "batch channels h w"], Float[Tensor, "tasks channels"], Float[Tensor, "tasks channels"]]:
    """Normalise stretch d (`sizes[d]` images) by its own mean and variance, then scale by `weight[d]`, shift by `bias[d]`.

    Returns the result and the batch means and biased variances (for running statistics; no gradient flows through).
    """
    output, mean, inverse = _segment_norm(
        features.contiguous(memory_format=_layout(features)), weight, bias, list(sizes), eps, relu
    )
    return output, mean.detach(), inverse.detach() ** -2 - eps


def _layout(features: Tensor) -> torch.memory_format:
    last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


# Operators of torch's own kind, so that the compiler takes each for one step and does not look inside, where views are written.
@torch.library.custom_op("mtan::segment_norm", mutates_args=())
def _segment_norm(
    features: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm and rectifier stretch by stretch, into one output: no concatenation, and each stretch stays in the cache."""
    output, mean, inverse = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)
    for d, (x, y) in enumerate(zip(features.split(sizes), output.split(sizes), strict=True)):
        out = {"out": y, "save_mean": mean[d], "save_invstd": inverse[d]}
        torch.ops.aten.native_batch_norm.out(x, weight[d], bias[d], None, None, True, 0.0, eps, **out)
        if relu:
            y.relu_()
    return output, mean, inverse


@torch.library.custom_op("mtan::segment_norm_backward", mutates_args=())
def _segment_norm_backward(
    gradient: Tensor,
    features: Tensor,
    output: Tensor | None,
    weight: Tensor,
    mean: Tensor,
    inverse: Tensor,
    sizes: list[int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of features, weight and bias; `output` is given where it was rectified."""
    to_features, to_weight, to_bias = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)
    parts = gradient.split(sizes), features.split(sizes), to_features.split(sizes)
    for d, (g, x, dx) in enumerate(zip(*parts, strict=True)):
        if output is not None:  # `dx` holds the rectified gradient for a moment: no further buffer
            g = torch.ops.aten.threshold_backward.grad_input(g, output.split(sizes)[d], 0, grad_input=dx)
        made = torch.ops.aten.native_batch_norm_backward(
            g, x, weight[d], None, None, mean[d], inverse[d], True, eps, [True, True, True]
        )
        if len(sizes) == 1:
            return made[0], made[1][None], made[2][None]
        for place, value in zip((dx, to_weight[d], to_bias[d]), made, strict=True):
            place.copy_(value)
    return to_features, to_weight, to_bias


@_segment_norm.register_fake
def _(
    features: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)


@_segment_norm_backward.register_fake
def _(
    gradient: Tensor,
    features: Tensor,
    output: Tensor | None,
    weight: Tensor,
    mean: Tensor,
    inverse: Tensor,
    sizes: list[int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    features, weight, _, ctx.sizes, ctx.eps, relu = inputs
    normalised, mean, inverse = output
    ctx.save_for_backward(features, normalised if relu else None, weight, mean, inverse)
    ctx.mark_non_differentiable(mean, inverse)


def _differentiate(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    features, output, weight, mean, inverse = ctx.saved_tensors
    gradient = gradient.contiguous(memory_format=_layout(features))
    made = _segment_norm_backward(gradient, features, output, weight, mean, inverse, ctx.sizes, ctx.eps)
    return *made, None, None, None


_segment_norm.register_autograd(_differentiate, setup_context=_remember)


def synchronised_norm(
    features: Float[Tensor, "batch channels h w"],
    sizes: Sequence[int],
    weight: Float[Tensor, "tasks channels"],
    bias: Float[Tensor, "tasks channels"],
    eps: float,
    relu: bool,
    group: Group,
) -> tuple[Float[Tensor, "batch channels h w"], Sequence[Tensor], Sequence[Tensor]]:
    """As `segment_norm`, by the statistics of the images of all processes, each of which has a part of every stretch.

    torch's own SyncBatchNorm knows neither stretches nor the CPU. Sums are made in fp32 at least. Returns the result, and each
    stretch's mean and unbiased variance.
    """
    parts = (features if features.dtype == torch.float64 else features.float()).split(list(sizes))
    pixels = features.shape[2] * features.shape[3]
    counts = parts[0].new_tensor([[size * pixels] for size in sizes])
    sums = differentiable_total(torch.cat([torch.stack([x.sum((0, 2, 3)) for x in parts]), counts], 1), group)
    counts = sums[:, -1:].detach()
    mean = sums[:, :-1] / counts
    centred = [x - own[:, None, None] for x, own in zip(parts, mean, strict=True)]
    var = differentiable_total(torch.stack([x.square().sum((0, 2, 3)) for x in centred]), group) / counts
    scale = weight * (var + eps).rsqrt()
    rows = zip(centred, scale, bias, strict=True)
    output = torch.cat([x * s[:, None, None] + b[:, None, None] for x, s, b in rows]).to(features.dtype)
    unbiased = (var * counts / (counts - 1).clamp(min=1)).detach().unbind()
    return output.relu() if relu else output, mean.detach().unbind(), unbiased


def normalise(
    features: Float[Tensor, "batch channels h w"],
    sizes: Sequence[int],
    weight: Float[Tensor, "tasks channels"],
    bias: Float[Tensor, "tasks channels"],
    mean: Float[Tensor, "tasks channels"],
    var: Float[Tensor, "tasks channels"],
    eps: float,
    relu: bool,
) -> Float[Tensor, "batch channels h w"]:
    """Normalise stretch d by the given statistics (evaluation, or a frozen network)."""
    parts = features.split(list(sizes))
    rows = zip(parts, weight, bias, mean, var, strict=True)
    outputs = [F.batch_norm(part, m, v, w, b, False, 0.0, eps) for part, w, b, m, v in rows]
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return output.relu() if relu else output
