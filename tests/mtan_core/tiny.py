"""A small network and batches for tests of what trains it."""

import torch

from mtan_core.ladder import Ladder
from mtan_core.network import AttentionNetwork
from mtan_core.norm import NormMode
from mtan_core.pools import WideResNet
from mtan_core.step import Batch

CLASSES = {"digits": 5, "flowers": 3, "signs": 4}


def tiny_network(norm: NormMode = "domain", dtype: torch.dtype = torch.float64) -> AttentionNetwork:
    torch.manual_seed(1)
    pool = WideResNet(10, 1, norm)
    return AttentionNetwork(pool, Ladder(pool.stages, norm), CLASSES).to(dtype)


def tiny_batches(size: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(seed)
    return {
        task: Batch(
            torch.randn(size, 3, 16, 16, dtype=dtype, generator=generator),
            torch.randint(classes, (size,), generator=generator),
        )
        for task, classes in CLASSES.items()
    }
