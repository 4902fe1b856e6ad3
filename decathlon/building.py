"""From a configuration to a network."""

import re
from collections.abc import Mapping

import torch
from torch import nn

from decathlon.config import RunConfig, load_config
from decathlon.specs import official_domains
from mtan_core.backbone import Backbone
from mtan_core.backbone_source import find_module
from mtan_core.convs import AdaptedConv, ControllerConv, OwnConv, Scores, SharedConv
from mtan_core.errors import UserError
from mtan_core.ladder import Ladder
from mtan_core.methods import methods
from mtan_core.network import AttentionNetwork
from mtan_core.norm import TaskNorm
from mtan_core.pools import WideResNet
from mtan_core.resnet26 import ResNet26

_ADDED = re.compile(r"\.(own|affine)\.")  # in the names of what every domain has its own of


def build(preset: str = "wrn28-4") -> AttentionNetwork:
    """The network of a preset with the ten official heads, with fresh weights."""
    classes = {name: domain.classes for name, domain in official_domains().items()}
    return build_network(load_config(preset, None), classes)


def build_network(config: RunConfig, classes: Mapping[str, int]) -> AttentionNetwork:
    """The network of a configuration, for domains with so many classes; the seed determines its weights."""
    shape = config.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = methods()[config.method]
        pool = make_pool(config)
        ladder = Ladder(pool.stages, config.norm, shape.mask_activation) if method.ladder else None  # type: ignore[arg-type]
        network = AttentionNetwork(pool, ladder, classes, shape.head_pool)
        if shape.init == "he":
            _he(network)
    return network.to(memory_format=torch.channels_last) if config.channels_last else network


def make_pool(config: RunConfig) -> nn.Module:
    """The network that domains share. Raises UserError for a backbone that is not there, or that the method cannot adapt."""
    shape, conv = config.network, methods()[config.method].conv
    if config.pool == "wrn":
        return WideResNet(shape.depth, shape.width, config.norm, shape.last_momentum, conv)
    if config.pool == "resnet26":
        return ResNet26(config.norm, conv)
    if conv != "shared":
        raise UserError(
            f'`method = "{config.method}"` adapts the convolutions of wrn or resnet26, found pool = "{config.pool}".'
        )
    return Backbone(find_module(config.pool), shape.nodes, config.norm, config.image_size)


def _he(network: nn.Module) -> None:
    """He et al. 2015, fan out; biases 0.

    What adapts a shared convolution keeps its beginning, the identity; so does a backbone, whose weights may be learnt.
    """
    kept = {part for conv in network.modules() if isinstance(conv, AdaptedConv) for part in conv.own.modules()}
    kept |= {part for pool in network.modules() if isinstance(pool, Backbone) for part in pool.modules()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module not in kept:
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
    total = sum(p.numel() for p in named.values())
    pool = sum(p.numel() for name, p in named.items() if name.startswith("pool.") and not _ADDED.search(name))
    pool += sum(_once(module) for module in network.pool.modules())
    return {"parameters": total - norms + one_set, "pool_parameters": pool, "norm_parameters": norms - one_set}


def _once(module: nn.Module) -> int:
    """What one network alone has of what stands once for every domain."""
    if isinstance(module, TaskNorm):
        return 2 * module.channels
    if isinstance(module, OwnConv):
        return sum(p.numel() for p in next(iter(module.own.values())).parameters())
    return module.out_channels if isinstance(module, ControllerConv) and module.own_bias else 0  # the bias


def method_counts() -> dict[str, dict[str, float]]:
    """Of every method on WRN-28-4 with the ten official heads: its parameters, its pool's, and `multiple`, see there."""
    classes = {name: domain.classes for name, domain in official_domains().items()}
    counts = {}
    for name in methods():
        config = load_config(
            "wrn28-4", None, [f"method={name}", "pool_from=any", "distillation.teachers=any", "network.init=torch"]
        )
        with torch.device("meta"):
            network = build_network(config, classes)
        counts[name] = {**parameter_counts(network), "multiple": round(multiple(network), 4)}
    return counts


def multiple(network: AttentionNetwork) -> float:
    """Parameters of ten domains as a multiple of the pool's, as the papers count them.

    (pool + nine added domains) / pool: one domain, ImageNet, uses the pool itself. Heads and batch norms are left out,
    a binary mask counts one bit per weight. MTAN's own paper counts everything, heads and ten ladders, over the pool.
    """
    counts = parameter_counts(network)
    if network.ladder is not None:
        return counts["parameters"] / counts["pool_parameters"]
    convs = [module for module in network.pool.modules() if isinstance(module, SharedConv | OwnConv)]
    pool = sum(p.numel() for conv in convs for p in conv.parameters(recurse=False)) + sum(_once(conv) for conv in convs)
    return (pool + 9 * sum(_added(conv, network.tasks[0]) for conv in convs)) / pool


def _added(conv: SharedConv | OwnConv, task: str) -> float:
    if type(conv) is SharedConv:
        return 0
    own: nn.Module = conv.own[task]  # type: ignore[index,assignment]
    return sum(p.numel() for p in own.parameters()) / (32 if isinstance(own, Scores) else 1)


def own_parameters(network: AttentionNetwork, domain: str) -> int:
    """How many parameters a domain alone owns."""
    return sum(p.numel() for p in network.parameter_groups()[domain].values())
