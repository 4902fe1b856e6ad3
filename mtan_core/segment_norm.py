"""Batch normalisation of every stretch of a joint batch by its own statistics, with the rectifier in the same pass."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@torch.compiler.disable  # writes through views, which the compiler cannot follow; convolutions around it are compiled
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
    layout = (
        torch.channels_last if features.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    )
    features = features.contiguous(memory_format=layout)
    output, mean, inverse = _SegmentNorm.apply(features, weight, bias, tuple(sizes), eps, relu)
    return output, mean, inverse.detach() ** -2 - eps


class _SegmentNorm(torch.autograd.Function):
    """Batch norm and rectifier stretch by stretch, into one output: no concatenation, and each stretch stays in the cache."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, sizes: tuple[int, ...], eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        output, mean, inverse = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)
        for d, (x, y) in enumerate(zip(features.split(sizes), output.split(sizes), strict=True)):
            out = {"out": y, "save_mean": mean[d], "save_invstd": inverse[d]}
            torch.ops.aten.native_batch_norm.out(x, weight[d], bias[d], None, None, True, 0.0, eps, **out)
            if relu:
                y.relu_()
        ctx.save_for_backward(features, output if relu else None, weight, mean, inverse)
        ctx.sizes, ctx.eps = sizes, eps
        ctx.mark_non_differentiable(mean, inverse)
        return output, mean, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        features, output, weight, mean, inverse = ctx.saved_tensors
        layout = (
            torch.channels_last
            if features.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        parts = gradient.contiguous(memory_format=layout).split(ctx.sizes)
        to_features, to_weight, to_bias = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)
        for d, (g, x, dx) in enumerate(
            zip(parts, features.split(ctx.sizes), to_features.split(ctx.sizes), strict=True)
        ):
            if output is not None:  # `dx` holds the rectified gradient for a moment: no further buffer
                g = torch.ops.aten.threshold_backward.grad_input(g, output.split(ctx.sizes)[d], 0, grad_input=dx)
            made = torch.ops.aten.native_batch_norm_backward(
                g, x, weight[d], None, None, mean[d], inverse[d], True, ctx.eps, [True, True, True]
            )
            for place, value in zip((dx, to_weight[d], to_bias[d]), made, strict=True):
                place.copy_(value)
        return to_features, to_weight, to_bias, None, None, None


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
