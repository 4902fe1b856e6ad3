"""What a module computes: its nodes, the maps of features that they give, and the part of it that leads to some of them."""

import contextlib
import inspect
import math
import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtan_core.errors import UserError

Shape = tuple[int, ...]


TAPPED = "tapped"  # in what a graph knows of a node: its map, if it is one of those to tap


class Map(NamedTuple):
    """A square map of features per image, which a node gives; `side` in pixels."""

    channels: int
    side: int
    channels_last: bool = False  # as (batch, h, w, channels)


Maps = Mapping[str, Map]  # by node, in the order of the computation


class _Tracer(fx.Tracer):
    """Traces a module and names its nodes as torchvision's feature extraction does: the module's path, then the operation."""

    def __init__(self) -> None:
        from torchvision import ops  # loads torch's compiler: two seconds that only a tapped pool needs

        layers = sys.modules.get("timm.layers")  # who uses them has imported them
        functions = layers.get_notrace_functions() if layers else ()
        super().__init__(autowrap_modules=(math, ops), autowrap_functions=tuple(functions))  # type: ignore[arg-type]
        whole = [kind for kind in vars(ops).values() if inspect.isclass(kind) and issubclass(kind, nn.Module)]
        self.leaves = (_BatchNorm, *whole, *(layers.get_notrace_modules() if layers else ()))
        self.path = ""
        self.seen: Counter[str] = Counter()
        self.names: dict[fx.Node, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, *rest: Any) -> Any:
        outer, self.path = self.path, self.path_of_module(m)
        try:
            return super().call_module(m, *rest)
        finally:
            self.path = outer

    def create_proxy(self, kind: str, *rest: Any, **options: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, *rest, **options)
        name = self.path if kind == "call_module" else f"{self.path}.{_plain(proxy.node)}".lstrip(".")
        self.names[proxy.node] = f"{name}_{self.seen[name]}" if self.seen[name] else name
        self.seen[name] += 1
        return proxy


def _plain(node: fx.Node) -> str:
    """Without the number that tells operations of one name apart in the whole network."""
    stem, _, number = node.name.rpartition("_")
    return stem if stem and number.isdigit() else node.name


class _Survey(fx.Interpreter):
    """A pass that notes what shape each node gives, and whose values a later operation changes in place."""

    def __init__(self, module: fx.GraphModule, names: Mapping[fx.Node, str]) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.names, self.shapes = names, dict[str, Shape]()
        self.held: dict[str, tuple[Tensor, int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and n.op not in ("placeholder", "get_attr", "output"):
            self.shapes[self.names[n]] = tuple(value.shape)
            if value.ndim == 4:
                self.held[self.names[n]] = (value, value._version)
        return value

    @property
    def changed(self) -> set[str]:
        return {name for name, (value, version) in self.held.items() if value._version != version}


class Traced:
    """A module, traced for square images of `size` pixels; in evaluation mode, in which functional dropout is off.

    `maps` holds the nodes that give maps, found by a pass over two images and one over an image of twice the size (what
    does not grow with the image is no map). The pass may end early, at `problem`, as a classifier of another size does.
    """

    def __init__(self, module: nn.Module, size: int, named: str = "`image_size`") -> None:
        """`named`: what the size is called. Raises UserError for a module that torch cannot trace, or that takes no such images."""
        tracer = _Tracer()
        try:
            self.graph = fx.GraphModule(module, tracer.trace(module.eval()))
        except Exception as problem:  # whatever a stranger's module may do
            raise UserError(
                f"`pool`: expected a network that torch can trace, found one it cannot: {_words(problem)}."
            ) from None
        self.names = tracer.names
        found, self.problem = self._survey(images_of(size))
        larger, _ = self._survey(images_of(2 * size)[:1])
        self.changed = found.changed
        shapes = {name: _map(shape, larger.shapes.get(name)) for name, shape in found.shapes.items()}
        self.maps: Maps = {name: made for name, made in shapes.items() if made is not None}
        if self.problem and not self.maps:
            raise UserError(
                f"`pool`: expected a network for images of {size} pixels ({named}), found one that fails: "
                f"{_own_words(module, size) or self.problem}."
            )

    @torch.no_grad()
    def _survey(self, images: Tensor) -> tuple[_Survey, str]:
        survey = _Survey(self.graph, self.names)
        try:
            survey.run(images)
        except Exception as problem:
            return survey, _words(problem)
        return survey, ""

    def body(self, chosen: Sequence[str]) -> fx.GraphModule:
        """What leads to these nodes: a module that gives their maps, channels first, each as it is when it arises."""
        graph, places = self.graph.graph, {name: node for node, name in self.names.items()}
        nodes = [places[name] for name in chosen]
        order = list(graph.nodes)
        for node in reversed(order[max(map(order.index, nodes)) + 1 :]):
            graph.erase_node(node)
        given = []
        for name, node in zip(chosen, nodes, strict=True):
            node.meta |= {TAPPED: self.maps[name], "changed": name in self.changed}
            with graph.inserting_after(node):
                if name in self.changed:
                    node = graph.call_method("clone", (node,))
            with graph.inserting_after(node):
                given.append(
                    graph.call_method("permute", (node, 0, 3, 1, 2)) if self.maps[name].channels_last else node
                )
        graph.output(tuple(given))
        graph.eliminate_dead_code(_is_needed)
        return fx.GraphModule(self.graph, graph)


class Walk(fx.Interpreter):
    """A pass of a body that stops at every tapped node, so that networks side by side can mix their features there."""

    def through(self, images: Tensor) -> Generator[Tensor, Tensor, None]:
        """Gives each tapped map, channels first, and goes on with what is sent in its place, of the same shape."""
        self.args_iter = iter([images])
        for node in self.graph.nodes:
            if node.op == "output":
                return
            value = self.run_node(node)
            if tapped := node.meta.get(TAPPED):
                value = yield value.permute(0, 3, 1, 2) if tapped.channels_last else value
                value = value.permute(0, 2, 3, 1) if tapped.channels_last else value
                value = value.clone() if node.meta["changed"] else value  # others may read it too
            self.env[node] = value
            for used in self.user_to_last_uses.get(node, ()):
                del self.env[used]


def _is_needed(node: fx.Node) -> bool:
    """Whether a node matters though nobody reads what it gives: it may change a value in place."""
    return node.op in ("placeholder", "output") or (node.op == "call_method" and str(node.target).endswith("_"))


def _map(shape: Shape, larger: Shape | None) -> Map | None:
    if len(shape) != 4 or shape[0] != 2:
        return None
    if shape[2] == shape[3] and (shape[2] > 1 if larger is None else larger[2] == larger[3] > shape[2]):
        return Map(shape[1], shape[2])
    if shape[1] == shape[2] and larger is not None and larger[1] == larger[2] > shape[1]:
        return Map(shape[3], shape[1], channels_last=True)
    return None


def images_of(size: int, seed: int = 0) -> Tensor:
    """Two square images of noise."""
    with torch.device("cpu"):
        return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def moved_buffers(module: nn.Module, size: int) -> set[str]:
    """The buffers that a training pass moves, which are set back."""
    held = dict(module.named_buffers())
    before = {name: value.clone() for name, value in held.items()}
    module.train()
    # what comes before a classifier of another size has moved when that fails
    with torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
        module(images_of(size))
    module.eval()
    moved = {name for name, value in held.items() if not torch.equal(value, before[name])}
    for name in moved:
        held[name].copy_(before[name])
    return moved


@torch.no_grad()
def varies(body: nn.Module, size: int) -> bool:
    """Whether what it says of an image depends on chance, or on the other images of the batch, batch norms aside."""
    body.train()
    for part in body.modules():
        if isinstance(part, _BatchNorm):
            part.eval()
    first, others = images_of(size), images_of(size, seed=1)
    with torch.random.fork_rng(devices=[]):
        alone, among = body(first), body(torch.cat([first[:1], others]))
    return any(
        len(b) != 3 or float((a[0] - b[0]).abs().max()) > 1e-3 * max(float(a[0].abs().max()), 1e-6)
        for a, b in zip(alone, among, strict=True)
    )


def _own_words(module: nn.Module, size: int) -> str:
    """What the module itself says of such images, without the tracer between."""
    try:
        with torch.no_grad():
            module(images_of(size))
    except Exception as problem:
        return _words(problem)
    return ""


def _words(problem: BaseException) -> str:
    """The first line of what an exception says, without the full stop."""
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[0].strip().rstrip(".")[:300]
