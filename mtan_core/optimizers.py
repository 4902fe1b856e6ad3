"""From a configuration to an optimiser."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from mtan_core.config import OptimizerConfig
from mtan_core.network import TaskNetwork
from mtan_core.norm import SHARED
from mtan_core.weighting import Weighting


def make_optimizer(
    options: OptimizerConfig,
    network: TaskNetwork,
    weighting: Weighting,
    lr: float,
    beside: Iterable[nn.Parameter] = (),
    own_decay: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """SGD or AdamW over what learns: one group per decay; learnt task weights are never decayed.

    `beside` learns with the network without being part of it; `own_decay` is the weight decay of what a task alone owns,
    where it is not that of all. AdamW is the fused one. SGD is not: torch's fused SGD fails where a parameter's first
    gradient comes after others'.
    """
    decayed: dict[float, list[nn.Parameter]] = {}
    for owner, named in network.parameter_groups().items():
        decay = options.weight_decay if owner == SHARED else (own_decay or {}).get(owner, options.weight_decay)
        for parameter in named.values():
            own = decay if options.decay_norms or parameter.ndim > 1 else 0.0
            decayed.setdefault(own, []).append(parameter)
    groups: list[dict[str, Any]] = [{"params": params, "weight_decay": decay} for decay, params in decayed.items()]
    groups += [{"params": learnt, "weight_decay": 0.0}] if (learnt := list(weighting.parameters())) else []
    groups += [{"params": more, "weight_decay": options.weight_decay}] if (more := list(beside)) else []
    if options.kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(options.momentum, 0.999), fused=True)
    nesterov = options.nesterov and options.momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=options.momentum, nesterov=nesterov)
