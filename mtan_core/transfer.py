"""Beginning with a pool that another network has learnt."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtan_core.convs import ControllerConv, LowRankConv, OwnConv, SharedConv
from mtan_core.errors import UserError
from mtan_core.network import AttentionNetwork
from mtan_core.norm import TaskNorm

Weights = Mapping[str, Tensor]
_PART = re.compile(r"\.(own|affine|statistics)\.")  # in the names of parts of convolutions and batch norms


@torch.no_grad()
def take_pool(network: AttentionNetwork, weights: Weights, where: str) -> None:
    """Set the pool's shared weights, and each task's copies of them, to those of another network's state dict.

    Scales, shifts and running statistics of batch norms become those of the same task, or the mean over the other
    network's tasks for one that it does not know. What a method adds to the pool stays as it began, but for adapters of
    low rank, which are cut from parallel adapters where the other network has them. Raises UserError, before anything is
    changed, for a pool of another shape.
    """
    moves = [move for name, module in network.pool.named_modules() for move in _moves(f"pool.{name}", module, weights)]
    for name, place, value in moves:
        found = "none" if value is None else str(tuple(value.shape))
        if value is None or value.shape != place.shape:
            raise UserError(
                f"{where}: expected a pool like the new one, with {name} of shape {tuple(place.shape)}, found {found}."
            )
    for _, place, value in moves:
        assert value is not None
        place.copy_(value)


def _moves(name: str, module: nn.Module, weights: Weights) -> list[tuple[str, Tensor, Tensor | None]]:
    """What of a module is to be set: the name in the other network, the place here, and the value there."""
    if isinstance(module, SharedConv | OwnConv):
        places = [*module.named_parameters(recurse=False), *_copies(module)]
        cut = _cut(name, module, weights) if isinstance(module, LowRankConv) else []
        return [*((f"{name}.{key}", place, weights.get(f"{name}.{key}")) for key, place in places), *cut]
    if isinstance(module, TaskNorm):
        return [
            (f"{name}.{key}", place, _of_norm(name, task, key, weights))
            for held in (module.affine, module.statistics)
            for task, part in held.items()
            for key, place in part.state_dict(keep_vars=True).items()
        ]
    if _PART.search(name):  # of the kinds above
        return []
    held = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))  # of a backbone's module
    return [(f"{name}.{key}", place, weights.get(f"{name}.{key}")) for key, place in held]


def _cut(name: str, conv: LowRankConv, weights: Weights) -> list[tuple[str, Tensor, Tensor | None]]:
    """The factors of learnt parallel adapters A = U S V' that keep most of them: U sqrt(S) and sqrt(S) V', cut to the rank."""
    moves: list[tuple[str, Tensor, Tensor | None]] = []
    for task, own in conv.own.items():
        if (learnt := weights.get(f"{name}.own.{task}.weight")) is not None:
            u, s, v = torch.linalg.svd(learnt.flatten(1), full_matrices=False)
            root = s[: conv.rank].sqrt()
            up, down = u[:, : conv.rank] * root, root[:, None] * v[: conv.rank]
            for part, factor in (("up", up), ("down", down)):
                place = own.get_parameter(f"{part}.weight")
                moves.append((f"{name}.own.{task}", place, factor[:, :, None, None]))
    return moves


def _copies(module: SharedConv | OwnConv) -> list[tuple[str, nn.Parameter]]:
    """What every task has a copy of: the whole convolution, or the bias beside its controller."""
    if isinstance(module, OwnConv):
        return [named for conv in module.own.values() for named in conv.named_parameters()]
    if isinstance(module, ControllerConv) and module.own_bias:
        return [("bias", conv.get_parameter("bias")) for conv in module.own.values()]
    return []


def _of_norm(name: str, task: str, key: str, weights: Weights) -> Tensor | None:
    """A task's own value of a batch norm (`weight`, `bias`, `mean` or `var`), or the mean over those tasks that are known."""
    part = "affine" if key in ("weight", "bias") else "statistics"
    prefix, suffix = f"{name}.{part}.", f".{key}"
    if (own := weights.get(f"{prefix}{task}{suffix}")) is not None:
        return own
    found = [value for full, value in weights.items() if full.startswith(prefix) and full.endswith(suffix)]
    return torch.stack(found).mean(0) if found else None
