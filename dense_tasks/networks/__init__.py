"""The networks of dense tasks: MTAN and what its paper compares it with, on SegNet, and some of them on other pools.

A network is one file here that defines `METHOD`; it is found by being there. All of them are called alike:
`network(images)` gives `{task: raw output}`.
"""

from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from dense_tasks.networks.method import SEGNET, DenseMethod, Options, Tasks
from mtan_core.errors import UserError, nearest

if TYPE_CHECKING:
    from mtan_core.dense import DenseNetwork

__all__ = ["NYUV2_TASKS", "DenseMethod", "Options", "build_network", "methods", "parameter_counts"]

NYUV2_TASKS: Tasks = {"semantic": 13, "depth": 1, "normal": 3}


@cache
def methods() -> dict[str, DenseMethod]:
    """All methods by name, `mtan` first."""
    found = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)]
    made: list[DenseMethod] = [module.METHOD for module in found if hasattr(module, "METHOD")]
    return {method.name: method for method in sorted(made, key=lambda method: (method.name != "mtan", method.name))}


def find_method(name: str) -> DenseMethod:
    """The method of that name. Raises UserError where there is none."""
    if name not in methods():
        raise UserError(f"There is no method '{name}'{nearest(name, methods())}.")
    return methods()[name]


def build_network(
    method: str, tasks: Tasks, *, paper: bool = False, channels_last: bool = True, **options: Any
) -> "DenseNetwork":
    """A network with fresh weights for these tasks (`{name: output channels}`).

    `paper`: as the authors' network, odd as it may be; `options` (see `Options`) change it further. The authors' networks
    also hold one log-variance for each task, which here belongs to the weighting of losses, so that parameters are fewer
    by the number of tasks. `channels_last`: the layout, which is faster, and rounds otherwise. Raises UserError for unknown
    names and for tasks that cannot be.
    """
    import torch

    from mtan_core.dense import Apart, initialise

    found = find_method(method)
    known = {option.name for option in fields(Options)}
    for name in options:
        if name not in known:
            raise UserError(f"There is no network option '{name}'{nearest(name, known)}.")
    chosen = Options(**{**(found.paper if paper else {}), **options})
    make = found.build if chosen.pool == SEGNET else found.on_backbone
    if make is None:
        raise UserError(f"{unsuited(method, chosen.pool)}.")
    if chosen.pool == SEGNET:
        chosen = replace(chosen, filters=chosen.filters or found.filters)
    network = Apart(tasks, lambda one: make(one, chosen)) if found.one_task else make(tasks, chosen)
    if chosen.pool == SEGNET:
        initialise(network, chosen.initialisation)
    return network.to(memory_format=torch.channels_last) if channels_last else network


def unsuited(method: str, pool: str) -> str:
    """What to say of a method that is not made on a pool."""
    able = ", ".join(name for name, other in methods().items() if other.on_backbone)
    return f"`method`: on the pool {pool} there are {able}, found {method}, which there is on {SEGNET} only"


def parameter_counts(network: "DenseNetwork") -> dict[str, int]:
    """All parameters, and those that several tasks share."""
    shared = network.parameter_groups()["shared"]
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "shared_parameters": sum(p.numel() for p in shared.values()),
    }
