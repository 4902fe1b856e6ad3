"""From a configuration to an optimiser."""

from typing import Any

import torch
from torch import nn

from decathlon.config import RunConfig
from mtan_core.distillation import Distillation
from mtan_core.network import AttentionNetwork
from mtan_core.norm import SHARED
from mtan_core.weighting import Weighting


def make_optimizer(
    config: RunConfig,
    network: AttentionNetwork,
    weighting: Weighting,
    lr: float,
    distillation: Distillation | None = None,
) -> torch.optim.Optimizer:
    """SGD or AdamW over what learns: one group per decay; learnt task weights are never decayed.

    AdamW is the fused one. SGD is not: torch's fused SGD fails where a parameter's first gradient comes after others'.
    """
    options = config.optimizer
    decayed: dict[float, list[nn.Parameter]] = {}
    for owner, named in network.parameter_groups().items():
        decay = (
            options.weight_decay if owner == SHARED else options.domain_weight_decay.get(owner, options.weight_decay)
        )
        for parameter in named.values():
            own = decay if options.decay_norms or parameter.ndim > 1 else 0.0
            decayed.setdefault(own, []).append(parameter)
    groups: list[dict[str, Any]] = [{"params": params, "weight_decay": decay} for decay, params in decayed.items()]
    if learnt := list(weighting.parameters()):
        groups.append({"params": learnt, "weight_decay": 0.0})
    if distillation:
        groups.append({"params": list(distillation.parameters()), "weight_decay": options.weight_decay})
    if options.kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(options.momentum, 0.999), fused=True)
    nesterov = options.nesterov and options.momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=options.momentum, nesterov=nesterov)
