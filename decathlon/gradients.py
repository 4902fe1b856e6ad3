"""Whether the domains' gradients on the shared pool agree: who helps whom, and who is in conflict."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from decathlon.data.store import Store
from decathlon.reports import checked_split, common_domains
from decathlon.runs import Run
from decathlon.training_images import TrainingImages, training_images
from mtan_core.network import AttentionNetwork
from mtan_core.norm import SHARED
from mtan_core.progress import progress
from mtan_core.sampling import keyed_generator
from mtan_core.step import classification_loss

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class GradientCosines:
    """How the gradients of the domains' losses with respect to the shared pool agree, over several batches of each.

    A cosine above 0 says that a small step for one domain lowers the other's loss, one below 0 that it raises it. The
    gradient's length lies mostly in the few weights of the first convolution, so that the cosine of the whole gradient tells
    of little else; hence the mean over convolutions, in which each counts alike.
    """

    domains: list[str]
    cosines: Matrix  # (domains, domains): means over convolutions and batches; diagonal: between batches of a domain
    errors: Matrix  # (domains, domains): standard errors of these means over batches; NaN for a single batch
    whole: Matrix  # (domains, domains): cosines of the whole gradient, means over batches
    batches: int
    parameters: int  # of the pool that are shared

    def pairs(self, sign: int, level: float = 0.05) -> list[tuple[str, str, float, float]]:
        """Pairs with cosines of this sign that are not chance, the farthest from 0 first: names, cosine, standard error.

        By Student's t at this level, divided by the number of pairs (Bonferroni).
        """
        from scipy.stats import t  # type: ignore[attr-defined]

        upper = list(zip(*np.triu_indices(len(self.domains), 1), strict=True))
        if self.batches < 2 or not upper:
            return []
        threshold = t.ppf(1 - level / 2 / len(upper), self.batches - 1)
        rows = [
            (self.domains[a], self.domains[b], float(self.cosines[a, b]), float(self.errors[a, b])) for a, b in upper
        ]
        return sorted((row for row in rows if sign * row[2] > threshold * row[3]), key=lambda row: -sign * row[2])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; errors are null where there was one batch only."""
        return {
            "domains": self.domains, "batches": self.batches, "parameters": self.parameters,
            "cosine": self.cosines.tolist(), "error": self.errors.tolist() if self.batches > 1 else None,
            "whole": self.whole.tolist(),
            "help": [_pair(row) for row in self.pairs(1)], "conflict": [_pair(row) for row in self.pairs(-1)],
        }  # fmt: skip


def _pair(row: tuple[str, str, float, float]) -> dict[str, Any]:
    return {"domains": list(row[:2]), "cosine": row[2], "error": row[3]}


def gradient_cosines(run: Run, store: Store, domains: str | None = None, batches: int = 16) -> GradientCosines | None:
    """Cosines between the gradients of the domains' losses on training batches, as the run's recipe makes them.

    Gradients are those of training mode, with respect to the pool's parameters that all domains share, in fp32. They are
    taken on a copy of the network: neither a weight nor a running statistic of the run changes. None where the pool
    shares no parameter.
    """
    names = common_domains(run, store, domains)
    for name in names:
        checked_split(run, store, name, "train")
    sources = {name: training_images(run.config, store, name, run.device) for name in names}
    network = copy.deepcopy(run.network).requires_grad_(True).train()
    shared = [p for name, p in network.parameter_groups()[SHARED].items() if name.startswith("pool.")]
    if not shared:
        return None
    layered: list[Matrix] = []
    whole: list[Matrix] = []
    before: list[torch.Tensor] = []
    with progress("gradients", total=(batches + 1) * len(names)) as advance:
        for number in range(batches + 1):  # the last one only for the others to be compared with
            rows = []
            for name, source in sources.items():
                rows.append(_gradient(run, source, number, network, shared))
                advance(note=name)
            gradients = torch.stack(rows)
            now = [_by_layer(gradients, shared), F.normalize(gradients, dim=1)]
            for found, old, new in zip((layered, whole), before, now, strict=False):
                cosines = (old @ old.T).fill_diagonal_(0) + torch.diag((old * new).sum(1))
                found.append(cosines.cpu().double().numpy())
            before = now
    stack = np.stack(layered)
    errors = stack.std(axis=0, ddof=1) / np.sqrt(batches) if batches > 1 else np.full(stack.shape[1:], np.nan)
    count = sum(p.numel() for p in shared)
    return GradientCosines(names, stack.mean(axis=0), errors, np.mean(whole, axis=0), batches, count)


def _by_layer(gradients: torch.Tensor, shared: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """Vectors whose scalar products are means over convolutions of the cosines of their weights' gradients.

    Biases and scales are left out: before a batch norm a bias has no gradient but rounding.
    """
    parts = zip(gradients.split([p.numel() for p in shared], dim=1), shared, strict=True)
    layers = [F.normalize(part, dim=1) for part, p in parts if p.ndim > 1]
    return torch.cat(layers, dim=1) / len(layers) ** 0.5


def _gradient(
    run: Run, source: TrainingImages, number: int, network: AttentionNetwork, shared: Sequence[torch.nn.Parameter]
) -> torch.Tensor:
    """The gradient of a domain's loss on its batch of that number, as one vector."""
    domain = source.parts[0].spec.name
    rng = keyed_generator(run.config.seed, "gradients", domain, number)
    places = rng.choice(len(source), min(run.config.batch_size, len(source)), replace=False)
    batch = source.batch(places, number)
    loss = classification_loss(network(batch.images, domain), batch, run.config.label_smoothing)
    made = torch.autograd.grad(loss, shared, allow_unused=True)
    whole = [torch.zeros_like(p) if g is None else g for p, g in zip(shared, made, strict=True)]
    return torch.cat([gradient.reshape(-1) for gradient in whole])
