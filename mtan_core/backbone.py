"""A pool made of any convolutional network, by naming the nodes to tap."""

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtan_core.errors import UserError, nearest
from mtan_core.norm import NormMode, TaskNorm
from mtan_core.pools import StageChannels, Tap
from mtan_core.segments import Segments

Shapes = dict[str, tuple[int, int, int]]  # node -> channels, height, width of its output


class Backbone(nn.Module):
    """Any module of images (batch, 3, h, w), tapped at `nodes`, as a pool.

    A node is named as torchvision's feature extraction names it, mostly a module's path (`layer2.1.relu`, also `layer2`: its
    last). Without names every change of size ends a stage. The module's batch norms become `TaskNorm`s, which keep its
    learnt values; its dropout and stochastic depth are switched off, as steps must be repeatable. `size` is the side of
    the images, in pixels. Raises UserError for nodes that do not exist or do not fit together.
    """

    def __init__(self, module: nn.Module, nodes: Sequence[str], norm: NormMode, size: int) -> None:
        super().__init__()
        from torchvision.models.feature_extraction import create_feature_extractor

        calm(module)
        shapes = node_shapes(module, size)
        names = [_existing(node, shapes) for node in nodes] or last_of_each_size(shapes)
        self.stages = stages_of(names, shapes)
        self.nodes = names
        self.body = create_feature_extractor(module, {name: str(place) for place, name in enumerate(names)})
        self._now = _Now()
        _convert_norms(self.body, norm, self._now)

    def forward(self, images: Float[Tensor, "batch 3 h w"], segments: Segments) -> list[Tap]:
        self._now.segments = segments
        features = self.body(images)
        return [Tap(features[str(place)], features[str(place)]) for place in range(len(self.nodes))]


class _Now(threading.local):
    """The segments of the pass that a thread is making, for norms inside a graph that knows only tensors."""

    segments: Segments

    def __deepcopy__(self, memory: dict[int, Any]) -> "_Now":
        return _Now()  # shared by all norms of the copy, as `memory` sees to it


class BackboneNorm(TaskNorm):
    """A `TaskNorm` that is called as `BatchNorm2d` is."""

    def __init__(self, like: nn.BatchNorm2d, mode: NormMode, now: _Now) -> None:
        super().__init__(like.num_features, mode, 0.1 if like.momentum is None else like.momentum, like.eps)
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


def _convert_norms(body: nn.Module, mode: NormMode, now: _Now) -> None:
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, BackboneNorm(child, mode, now))


def calm(module: nn.Module) -> None:
    """Switch off dropout and stochastic depth: what a step draws must not depend on what ran before."""
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd) or type(part).__name__ in ("StochasticDepth", "DropPath"):
            for name in ("p", "drop_prob"):
                if hasattr(part, name):
                    setattr(part, name, 0.0)


def node_shapes(module: nn.Module, size: int) -> Shapes:
    """The nodes whose output is one map of features per image, in the order of the computation, found by a dry run."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    try:
        names = get_graph_node_names(module)[1][1:]  # without the images
        with torch.no_grad():
            outputs = create_feature_extractor(module, names).eval()(torch.zeros(2, 3, size, size))
    except Exception as problem:  # whatever a stranger's module may do
        raise UserError(
            f"Expected a network that torch can trace for images of {size} pixels, found one it cannot: {problem}."
        ) from None
    shapes = {name: tuple(value.shape) for name, value in outputs.items() if isinstance(value, Tensor)}
    # maps of square images are square; what is not has its axes in another order
    return {name: s[1:] for name, s in shapes.items() if len(s) == 4 and s[2] == s[3] > 1}


def last_of_each_size(shapes: Shapes) -> list[str]:
    """The last node before each change of size."""
    return list({side: name for name, (_, side, _) in shapes.items()}.values())


def _existing(node: str, shapes: Shapes) -> str:
    """The node of that name, or a module's last."""
    if node in shapes:
        return node
    inner = [name for name in shapes if name.startswith(f"{node}.")]
    if not inner:
        raise UserError(
            f"`network.nodes`: the network has no node '{node}'{nearest(node, shapes)}; it has {', '.join(shapes)}."
        )
    return inner[-1]


def stages_of(names: Sequence[str], shapes: Shapes) -> list[StageChannels]:
    """The stages of these nodes. Raises UserError where a ladder cannot get from one to the next."""
    if not names:
        raise UserError("Expected a network with maps of features, found none.")
    stages = []
    for name, following in pairwise(names):
        channels, side, _ = shapes[name]
        after = shapes[following][1]
        shrink = max(1, round(side / after))
        if after not in (side // shrink, -(-side // shrink)):
            raise UserError(
                f"`network.nodes`: expected maps that shrink by whole factors, found {name} of {side}x{side} before {following} "
                f"of {after}x{after}; the nodes are {', '.join(f'{node} {shape[1]}x{shape[2]}' for node, shape in shapes.items())}."
            )
        stages.append(StageChannels(channels, channels, shrink, round_up=after > side // shrink))
    last = shapes[names[-1]][0]
    return [*stages, StageChannels(last, last, 1)]


def find_module(name: str) -> nn.Module:
    """`torchvision:NAME`, `timm:NAME`, or `package.module:callable` (called without arguments), with fresh weights.

    Raises UserError for a name that is not there.
    """
    where, _, what = name.partition(":")
    if where == "torchvision":
        from torchvision.models import get_model, list_models  # type: ignore[attr-defined]

        if what not in list_models():
            raise UserError(f"`pool`: torchvision has no model '{what}'{nearest(what, list_models())}.")
        return get_model(what, weights=None)
    if where == "timm":
        return _timm(what)
    return _own(where, what)()


def _timm(name: str) -> nn.Module:
    try:
        timm = import_module("timm")
    except ImportError:
        raise UserError(f"`pool`: expected the package timm for 'timm:{name}', found it not installed.") from None
    if name not in timm.list_models():
        raise UserError(f"`pool`: timm has no model '{name}'{nearest(name, timm.list_models())}.")
    return timm.create_model(name, pretrained=False)


def _own(module: str, attribute: str) -> Callable[[], nn.Module]:
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        raise UserError(
            f"`pool`: expected wrn, resnet26, torchvision:NAME, timm:NAME or MODULE:CALLABLE, found '{module}:{attribute}'."
        ) from None
