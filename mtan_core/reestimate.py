"""Running statistics made anew, for networks that were trained with one set for all tasks."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mtan_core.network import AttentionNetwork
from mtan_core.norm import OwnNorm, TaskNorm


@torch.no_grad()
def reestimate(network: AttentionNetwork, task: str, batches: Iterable[Tensor]) -> None:
    """Replace one task's running statistics by the mean over `batches` of their batch statistics.

    No weight changes. A network of `norm="shared"` gives the task statistics of its own, used from now on in
    evaluation. The mode (training or evaluation) of the network is left as it was.
    """
    for shared in network.task_norms():
        if shared.mode == "shared":
            shared.own_statistics(task)
    norms = [module for module in network.modules() if isinstance(module, TaskNorm | OwnNorm)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.train()
    try:
        for number, images in enumerate(batches):
            for norm in norms:
                norm.momentum = 1.0 / (number + 1)
            network(images, task)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(was_training)
