"""A pool made of any convolutional network, by naming the nodes to tap."""

import copy
import threading
from collections.abc import Generator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtan_core.backbone_graph import Traced, Walk, moved_buffers, varies
from mtan_core.backbone_nodes import default_nodes, existing, stages_of
from mtan_core.errors import UserError
from mtan_core.network import owner_of
from mtan_core.norm import SHARED, NormMode, TaskNorm
from mtan_core.pools import Tap
from mtan_core.segments import Segments

LEAST_MOMENTUM = 0.1  # of running statistics: torch's default
PLAIN = (nn.BatchNorm2d, nn.SyncBatchNorm)  # the norms whose places `TaskNorm`s can take


class Backbone(nn.Module):
    """Any module of images (batch, 3, h, w), tapped at `nodes`, as a pool.

    A node is named as torchvision's feature extraction names it, mostly a module's path (`layer2.1.relu`, also `layer2`: its
    last). Without names the last module of every size ends a stage. What lies behind the last node is left out. The
    module's batch norms become `TaskNorm`s, which keep its learnt values; its dropout and stochastic depth are switched off,
    as steps must be repeatable. `size` is the side of the images, in pixels, `named` what messages call it. The module given stays.
    Raises UserError for nodes that do not exist or do not fit together, and for a module that tasks cannot share.
    """

    def __init__(
        self, module: nn.Module, nodes: Sequence[str], norm: NormMode, size: int, named: str = "`image_size`"
    ) -> None:
        super().__init__()
        with torch.device("cpu"):
            module = _own_copy(module)
            traced = Traced(module, size, named)
            if traced.problem and not nodes:
                raise UserError(
                    f"`pool`: expected a network for images of {size} pixels ({named}), found one that fails: {traced.problem}; "
                    "if that is behind the nodes to tap, name those by `network.nodes`."
                )
            self.nodes = [existing(node, traced.maps, traced.problem) for node in nodes] or default_nodes(traced.maps)
            self.stages = stages_of(self.nodes, traced.maps)
            self.body = traced.body(self.nodes)
            _refuse(self.body, moved_buffers(module, size), size)
            self._now = _Now()
            _convert_norms(self.body, norm, self._now)

    def forward(self, images: Float[Tensor, "batch 3 h w"], segments: Segments) -> list[Tap]:
        self._now.segments = segments
        return [Tap(features, features) for features in self.body(images)]

    def walk(self, images: Float[Tensor, "batch 3 h w"], segments: Segments) -> Generator[Tensor, Tensor, None]:
        """The tapped maps one after the other; after each, the network goes on with what is sent in its place."""
        self._now.segments = segments
        return Walk(self.body).through(images)

    @property
    def last_layer(self) -> nn.Conv2d | nn.Linear | None:
        """The convolution or matrix that is run last."""
        called = [
            self.body.get_submodule(str(node.target)) for node in self.body.graph.nodes if node.op == "call_module"
        ]
        layers = [part for module in called for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        return layers[-1] if layers else None


class _Now(threading.local):
    """The segments of the pass that a thread is making, for norms inside a graph that knows only tensors."""

    segments: Segments

    def __deepcopy__(self, memory: dict[int, Any]) -> "_Now":
        return _Now()  # shared by all norms of the copy, as `memory` sees to it


class BackboneNorm(TaskNorm):
    """A `TaskNorm` that is called as `BatchNorm2d` is."""

    def __init__(self, like: _BatchNorm, mode: NormMode, now: _Now) -> None:
        # A cumulative average (momentum None) becomes a moving one. The 0.01 of some networks, made for trainings of a
        # hundred thousand steps, would leave statistics that the weights have long run away from.
        super().__init__(like.num_features, mode, max(like.momentum or 0.0, LEAST_MOMENTUM), like.eps)
        self.now = now
        self.begin = {key: value.detach().clone() for key, value in like.state_dict().items()}
        for held in (*self.affine.values(), *self.statistics.values()):
            self._set(held)

    def add_task(self, task: str) -> None:
        super().add_task(task)
        for part in (self.affine, self.statistics):
            if task in part:
                self._set(part[task])

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(features, self.now.segments)

    def _set(self, held: nn.Module) -> None:
        names = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        for name, place in held.state_dict(keep_vars=True).items():
            place.data.copy_(self.begin[names[name]])


def _own_copy(module: nn.Module) -> nn.Module:
    """A copy whose batch norms stand alone, and in which nothing is drawn."""
    try:
        module = copy.deepcopy(module)
    except Exception as problem:  # whatever a stranger's module may do
        raise UserError(f"`pool`: expected a network that can be copied, found one that cannot: {problem}.") from None
    calm(module)
    _replace(module, {part: _parted(part) for part in module.modules() if type(part).__name__ == "BatchNormAct2d"})
    return module


def calm(module: nn.Module) -> None:
    """Switch off dropout and stochastic depth: what a step draws must not depend on what ran before."""
    for part in module.modules():
        kind = type(part).__name__
        if isinstance(part, nn.modules.dropout._DropoutNd) or kind in ("StochasticDepth", "DropPath", "DropBlock2d"):
            for name in ("p", "drop_prob"):
                if hasattr(part, name):
                    setattr(part, name, 0.0)


def _parted(norm: nn.Module) -> nn.Sequential:
    """timm's batch norm with dropout and activation in it, as three modules."""
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)  # type: ignore[arg-type]
    own = {key: value for key, value in norm.state_dict().items() if "." not in key}
    plain.load_state_dict(own)
    return nn.Sequential(plain, norm.drop, norm.act)  # type: ignore[arg-type]


def _replace(root: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Put modules in the place of others, wherever these stand: one may be known under several names."""
    for parent in list(root.modules()):
        for name, child in parent._modules.items():
            if child in new:
                parent._modules[name] = new[child]


def _convert_norms(body: nn.Module, mode: NormMode, now: _Now) -> None:
    _replace(body, {part: BackboneNorm(part, mode, now) for part in body.modules() if isinstance(part, _BatchNorm)})


def _refuse(body: nn.Module, moved: set[str], size: int) -> None:
    """Raises UserError for what tasks would share without anyone noticing; `moved` are buffers that move in training."""
    norms = {name: part for name, part in body.named_modules() if isinstance(part, _BatchNorm)}
    for name, part in norms.items():
        plain = any(isinstance(part, kind) and type(part).forward is kind.forward for kind in PLAIN)
        if not (plain and part.affine and part.track_running_stats):
            raise UserError(
                "`pool`: expected batch norms that are torch's BatchNorm2d with scale, shift and running statistics, found "
                f"{name}, a {type(part).__name__}: {part}."
            )
    state, own = body.state_dict(), tuple(f"{name}." for name in norms)
    for name in sorted(moved & set(state)):
        if not name.startswith(own):
            raise UserError(
                "`pool`: expected running statistics in BatchNorm2d modules only, where domains can have their own, found "
                f"{name}, which moves in training."
            )
    for name in state:
        if owner_of(name) != SHARED:
            raise UserError(
                "`pool`: expected no module named own, masks, affine or statistics, words that say what a domain owns, "
                f"found {name}."
            )
    _refuse_tied(body)
    if varies(body, size):
        raise UserError(
            "`pool`: expected a network that answers for every image by itself, and alike each time, found one whose features "
            "depend on chance or on the rest of the batch (batch norm or dropout that are not torch's modules?)."
        )


def _refuse_tied(body: nn.Module) -> None:
    """A checkpoint holds every tensor once, under one name."""
    held = dict[int, str]()
    for name, parameter in body.named_parameters(remove_duplicate=False):
        if (first := held.setdefault(id(parameter), name)) != name:
            raise UserError(f"`pool`: expected parameters that stand alone, found {name} tied to {first}.")
