"""Batch normalisation of every stretch of a joint batch by its own statistics, with the rectifier in the same pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


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
    outputs, means, variances = [], [], []
    for part, w, b in zip(features.split(list(sizes)), weight, bias, strict=True):
        with torch.no_grad():
            var, mean = torch.var_mean(part.float() if part.dtype == torch.bfloat16 else part, (0, 2, 3), correction=0)
        outputs.append(F.batch_norm(part, None, None, w, b, True, 0.0, eps))
        means.append(mean)
        variances.append(var)
    output = torch.cat(outputs)
    return (output.relu_() if relu else output), torch.stack(means), torch.stack(variances)


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
