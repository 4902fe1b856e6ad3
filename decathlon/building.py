"""From a configuration to a network."""

from collections.abc import Mapping

import torch
from torch import nn

from decathlon.config import RunConfig, load_config
from decathlon.specs import official_domains
from mtan_core.ladder import Ladder
from mtan_core.network import AttentionNetwork
from mtan_core.pools import WideResNet


def build(preset: str = "wrn28-4") -> AttentionNetwork:
    """The network of a preset with the ten official heads, with fresh weights."""
    classes = {name: domain.classes for name, domain in official_domains().items()}
    return build_network(load_config(preset, None), classes)


def build_network(config: RunConfig, classes: Mapping[str, int]) -> AttentionNetwork:
    """The network of a configuration, for domains with so many classes; the seed determines its weights."""
    shape = config.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        pool = WideResNet(shape.depth, shape.width, config.norm, shape.last_momentum)
        ladder = Ladder(pool.stages, config.norm, shape.mask_activation)
        network = AttentionNetwork(pool, ladder, classes, shape.head_pool)
        if shape.init == "he":
            network.apply(_he)
    return network.to(memory_format=torch.channels_last) if config.channels_last else network


def _he(module: nn.Module) -> None:
    """He et al. 2015, fan out; biases 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def parameter_counts(network: AttentionNetwork) -> dict[str, int]:
    """`parameters`, and `pool_parameters` with one set of batch-norm parameters.

    Per-domain batch norms are counted in `parameters` beyond one set apart, as `norm_parameters`.
    """
    named = dict(network.named_parameters())
    norms = sum(p.numel() for name, p in named.items() if ".affine." in name and ".masks." not in name)
    one_set = sum(2 * norm.channels for norm in network.task_norms())
    pool = sum(p.numel() for name, p in named.items() if name.startswith("pool.") and ".affine." not in name)
    pool += sum(
        2 * norm.channels
        for name, norm in network.named_modules()
        if name.startswith("pool.") and norm in network.task_norms()
    )
    total = sum(p.numel() for p in named.values())
    return {"parameters": total - norms + one_set, "pool_parameters": pool, "norm_parameters": norms - one_set}


def own_parameters(network: AttentionNetwork, domain: str) -> int:
    """How many parameters a domain alone owns."""
    return sum(p.numel() for p in network.parameter_groups()[domain].values())
