"""Whether a configuration's network fits the images, the weighting, and the memory: found out before anything is trained."""

from collections.abc import Sequence

import torch

from dense_tasks.config import RunConfig
from dense_tasks.data.root import Root
from dense_tasks.networks.method import SEGNET
from dense_tasks.runs import make_network
from mtan_core.dense import DenseNetwork
from mtan_core.errors import UserError
from mtan_core.memory import available_memory, refuse_beyond
from mtan_core.norm import SHARED
from mtan_core.weighting import Parameters, Weighting, byte_count, row_bytes
from mtan_core.weightings import make_weighting, weighting_class


def fitting_network(config: RunConfig, root: Root, device: torch.device) -> DenseNetwork:
    """The network with fresh weights. Raises UserError where it does not fit the images, the weighting, or the memory.

    A SegNet, whose width the user chooses, is first made without memory; other pools take seconds to make, and are what
    they are.
    """
    if config.pool == SEGNET:
        with torch.device("meta"):
            _refuse_unfit(config, root, device, make_network(config, root.tasks, root.size))
        return make_network(config, root.tasks, root.size)
    network = make_network(config, root.tasks, root.size)
    _refuse_unfit(config, root, device, network)
    return network


def _refuse_unfit(config: RunConfig, root: Root, device: torch.device, network: DenseNetwork) -> None:
    height, width = root.size
    if height % network.divisor or width % network.divisor:
        raise UserError(
            f"{root.path}: expected images whose sides divide by {network.divisor}, found {height}x{width}."
        )
    _refuse_weighting(config, network)
    copies = (3 if config.optimizer.kind == "sgd" else 4) + bool(config.ema)  # weights, gradients, optimiser, average
    needed, free = copies * byte_count(network.parameters()), available_memory(device)
    refuse_beyond(free, needed, "the network and its optimiser need", "lower network.filters")
    told = f"with the gradient of each task, which {config.weighting.kind} compares, the network and its optimiser need"
    refuse_beyond(
        free, needed + compared_bytes(config, network), told, 'lower network.filters or take weighting.kind = "equal"'
    )


def compared_bytes(config: RunConfig, network: DenseNetwork) -> int:
    """Bytes of the tasks' own gradients that the weighting compares."""
    groups = {owner: list(named.values()) for owner, named in network.parameter_groups().items()}
    parameters = Parameters(groups.pop(SHARED), groups)
    return row_bytes(weighting_of(config, network.tasks), parameters, network.tasks)


def weighting_of(config: RunConfig, tasks: Sequence[str]) -> Weighting:
    return make_weighting(
        config.weighting.kind, list(tasks), seed=config.seed, **config.weighting.model_dump(exclude={"kind"})
    )


def _refuse_weighting(config: RunConfig, network: DenseNetwork) -> None:
    """Raises UserError where gradients are to be compared that no two tasks have in common."""
    kind = config.weighting.kind
    if len(network.tasks) == 1 or not weighting_class(kind).compares_gradients:
        return
    needs = "parameters that tasks share" if kind != "gradnorm" else "a last convolution that all tasks share"
    has = network.parameter_groups()[SHARED] if kind != "gradnorm" else network.last_shared()
    if not has:
        raise UserError(
            f"`weighting.kind`: expected a method with {needs}, whose gradients {kind} compares; found {config.method}."
        )
