"""Batch normalisation of a joint batch: every task's images by that task's own batch statistics.

One set of running statistics for all domains is the trap of many-to-many learning (evaluation ends near chance), so
what tasks share is an explicit choice, see `NormMode`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtan_core.parallel import ALONE, Group
from mtan_core.segment_norm import normalise, segment_norm, synchronised_norm
from mtan_core.segments import Segments

NormMode = Literal["domain", "statistics", "shared"]
SHARED = "shared"  # the key of what all tasks share; refused as a task's name


class Affine(nn.Module):
    """The learnt scale and shift of a batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class Statistics(nn.Module):
    """The running mean and (unbiased) variance of a batch norm; in evaluation mode they stand still."""

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))


class TaskNorm(nn.Module):
    """Batch norm after a convolution that tasks share.

    `mode`: "domain": own affine parameters and own running statistics for each task; "statistics": own running
    statistics, one affine; "shared": one set of both (the MTAN paper), where a task gets statistics of its own only by
    re-estimation after training. In training, whatever the mode, a task's images are normalised by their own batch
    statistics, and shared running statistics are updated once per task in the batch's order.
    """

    def __init__(self, channels: int, mode: NormMode, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.mode, self.momentum, self.eps = channels, mode, momentum, eps
        self.group = ALONE  # whose images are normalised together
        self.affine = nn.ModuleDict({} if mode == "domain" else {SHARED: Affine(channels)})
        self.statistics = nn.ModuleDict({SHARED: Statistics(channels)} if mode == "shared" else {})

    def add_task(self, task: str) -> None:
        """Make what a new task does not share."""
        if self.mode == "domain":
            self.affine[task] = Affine(self.channels)
        if self.mode != "shared":
            self.statistics[task] = Statistics(self.channels)

    def own_statistics(self, task: str) -> None:
        """Give a task running statistics of its own, from now on used in evaluation ("shared" after re-estimation)."""
        statistics = Statistics(self.channels).to(self._any_statistics().mean)
        statistics.load_state_dict(self._statistics(task).state_dict())
        self.statistics[task] = statistics

    def drop_own_statistics(self) -> None:
        """Undo `own_statistics` for all tasks, to train on."""
        if self.mode == "shared":
            self.statistics = nn.ModuleDict({SHARED: self.statistics[SHARED]})

    def start_from(self, task: str, others: Sequence[str]) -> None:
        """Let what a task alone owns begin at the mean of other tasks', which what follows was trained with."""
        for parts in (self.affine, self.statistics):
            if task in parts:
                for name, value in parts[task].state_dict().items():
                    value.copy_(torch.stack([parts[other].state_dict()[name] for other in others]).mean(0))

    def thaw_own(self) -> None:
        """In a frozen norm, normalise training images by their batch again; only statistics of single tasks' own move."""
        self.training = True
        for task, statistics in self.statistics.items():
            statistics.train(task != SHARED)

    def forward(
        self, features: Float[Tensor, "batch channels h w"], segments: Segments, relu: bool = False
    ) -> Float[Tensor, "batch channels h w"]:
        """Normalise, scale and shift; with `relu`, rectify in the same pass."""
        weight, bias = self._affine(segments.tasks)
        statistics = [self._statistics(task) for task in segments.tasks]
        return _normalise(self, features, segments, weight, bias, statistics, relu)

    def _affine(self, tasks: Sequence[str]) -> tuple[Tensor, Tensor]:
        if self.mode == "domain":
            own = [self.affine[task] for task in tasks]
            return torch.stack([a.weight for a in own]), torch.stack([a.bias for a in own])  # type: ignore[misc]
        shared = self.affine[SHARED]
        return shared.weight.expand(len(tasks), -1), shared.bias.expand(len(tasks), -1)  # type: ignore[operator]

    def _statistics(self, task: str) -> Statistics:
        key = task if task in self.statistics else SHARED
        return self.statistics[key]  # type: ignore[return-value]

    def _any_statistics(self) -> Statistics:
        return next(iter(self.statistics.values()))  # type: ignore[return-value]


class OwnNorm(nn.Module):
    """Batch norm after a convolution of one task's own; computed for all tasks together by `own_norms`."""

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.group = ALONE
        self.affine = Affine(channels)
        self.statistics = Statistics(channels)


def own_norms(
    features: Float[Tensor, "batch channels h w"], segments: Segments, norms: Sequence[OwnNorm], relu: bool
) -> Float[Tensor, "batch channels h w"]:
    """Apply `norms[d]` to task d's stretch of the joint batch, in one pass over all."""
    weight = torch.stack([norm.affine.weight for norm in norms])
    bias = torch.stack([norm.affine.bias for norm in norms])
    return _normalise(norms[0], features, segments, weight, bias, [norm.statistics for norm in norms], relu)


def _normalise(
    norm: TaskNorm | OwnNorm,
    features: Tensor,
    segments: Segments,
    weight: Tensor,
    bias: Tensor,
    statistics: Sequence[Statistics],
    relu: bool,
) -> Tensor:
    """By the batch, moving the running statistics, or, when `norm` is in evaluation mode, by the running ones."""
    if not norm.training:
        mean, var = torch.stack([held.mean for held in statistics]), torch.stack([held.var for held in statistics])
        return normalise(features, segments.sizes, weight, bias, mean, var, norm.eps, relu)
    normalised, means, variances = _by_batch(norm, features, segments, weight, bias, relu)
    moves = zip(statistics, means, variances, strict=True)
    update_running([(held, mean, var) for held, mean, var in moves if held.training], norm.momentum)
    return normalised


def _by_batch(
    norm: TaskNorm | OwnNorm, features: Tensor, segments: Segments, weight: Tensor, bias: Tensor, relu: bool
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """The normalised features, and each stretch's mean and unbiased variance."""
    if norm.group.size > 1:
        return synchronised_norm(features, segments.sizes, weight, bias, norm.eps, relu, norm.group)
    normalised, mean, var = segment_norm(features, segments.sizes, weight, bias, norm.eps, relu)
    counts = [size * features.shape[2] * features.shape[3] for size in segments.sizes]
    return normalised, mean.unbind(), torch._foreach_mul(list(var.unbind()), [n / max(n - 1, 1) for n in counts])


@torch.no_grad()
def update_running(moves: Sequence[tuple[Statistics, Tensor, Tensor]], momentum: float) -> None:
    """Move running means and variances towards a batch's (the variance unbiased), as `torch.nn.BatchNorm2d` does.

    Statistics that stand in `moves` several times (shared by tasks) are moved once for each, in that order.
    """
    if not moves:
        return
    pairs = [(held.mean, mean) for held, mean, _ in moves] + [(held.var, var) for held, _, var in moves]
    if len({id(held) for held, _, _ in moves}) == len(moves):
        held, seen = zip(*pairs, strict=True)
        torch._foreach_lerp_(held, seen, momentum)
        return
    for own, value in pairs:
        own.lerp_(value, momentum)


def synchronise(network: nn.Module, group: Group) -> None:
    """Let training normalise by the statistics of all processes' images, where the group wants that."""
    if not group.synchronised:
        return
    for module in network.modules():
        if isinstance(module, TaskNorm | OwnNorm):
            module.group = group


def running_statistics(network: nn.Module) -> list[Tensor]:
    """The running statistics of a network that move in training, each once."""
    held = [module for module in network.modules() if isinstance(module, Statistics) and module.training]
    return [tensor for statistics in held for tensor in (statistics.mean, statistics.var)]
