"""GradNorm."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mtan_core.weighting import GradientWeighting, Parameters, Row, add_gradients


class GradNorm(GradientWeighting):
    """GradNorm (Chen et al. 2018, algorithm 1): weights that even out how fast tasks train.

    G_i = ||w_i dL_i/dW||, W the pool's last convolution, is to be mean(G) r_i^alpha, where r_i is the task's loss relative
    to its first, divided by the mean of that over tasks. The weights learn sum |G_i - mean(G) r_i^alpha|, the second term
    a constant, and are then renormalised to sum to the number of tasks. Their gradient does not reach the network.
    """

    source = "Chen, Badrinarayanan, Lee, Rabinovich, GradNorm, ICML 2018"
    keeps_rows = False
    FLOOR = (
        1e-3  # the paper has no bounds, without which a long step makes a weight negative; 1 / FLOOR is the upper one
    )

    first: Tensor

    def __init__(self, tasks: Sequence[str], seed: int = 0, alpha: float = 1.5) -> None:
        super().__init__(tasks, seed)
        if not alpha >= 0:
            raise ValueError(f"`alpha` must not be negative. Found {alpha}.")
        self.alpha = alpha
        self.factors = nn.ParameterList(nn.Parameter(torch.tensor(1.0)) for _ in tasks)
        self._used: dict[str, float] = {}
        self.register_buffer("first", torch.full((len(self.tasks),), torch.nan))

    def weights(self) -> dict[str, float]:
        return dict(zip(self.tasks, torch.stack(list(self.factors)).tolist(), strict=True)) if self.tasks else {}

    def gather(self, rows: Iterable[Row], parameters: Parameters) -> None:
        weights = self.weights()
        place = next((i for i, p in enumerate(parameters.shared) if p is parameters.last), None)
        losses, norms = {}, {}
        for row in rows:
            self._used[row.task] = weights[row.task]
            add_gradients(parameters.shared, row.shared, weights[row.task])
            add_gradients(parameters.own.get(row.task, ()), row.own, weights[row.task])
            gradient = None if place is None else row.shared[place]
            if gradient is not None:
                losses[row.task], norms[row.task] = row.loss, torch.linalg.vector_norm(gradient)
        if norms:
            self._learn(losses, norms)

    @torch.no_grad()
    def _learn(self, losses: Mapping[str, Tensor], norms: Mapping[str, Tensor]) -> None:
        """Give these tasks' weights their gradients."""
        places = [self.tasks.index(task) for task in losses]
        factors = [self.factors[place] for place in places]
        now, norm = torch.stack(list(losses.values())), torch.stack(list(norms.values()))
        first = self.first[places].to(now)
        first = torch.where(first.isnan(), now, first)
        self.first[places] = first.to(self.first)
        lengths = torch.stack(factors) * norm
        left = now / first.clamp(min=1e-8)
        rate = left / left.mean().clamp(min=1e-8)
        slopes = torch.sign(lengths - lengths.mean() * rate**self.alpha) * norm
        for factor, slope in zip(factors, slopes.nan_to_num(0.0, 0.0, 0.0), strict=True):  # none where norms overflow
            factor.grad = slope.to(factor).clone()

    @torch.no_grad()
    def end_step(self, tasks: Iterable[str]) -> None:
        self.note(self._used)
        self._used = {}
        learnt = [factor for factor in self.factors if factor.grad is not None]
        if learnt:
            held = sum(factor.item() for factor in self.factors if factor.grad is None)
            moved = torch.stack(learnt).clamp(self.FLOOR, 1 / self.FLOOR)
            moved = moved * ((len(self.tasks) - held) / moved.sum())
            for factor, value in zip(learnt, moved, strict=True):
                factor.copy_(value)


WEIGHTING = GradNorm
