"""Dense networks on a residual network, task after task with torchvision's and torch's own modules: what ours are held to.

`pairs` gives what is the same in both: our tensor's name and the plain tensor.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, conv1x1
from torchvision.models.segmentation.fcn import FCNHead

CHANNELS = (8, 8, 16, 12)
LAYERS = ("layer1", "layer2", "layer3", "layer4")
Pairs = Iterator[tuple[str, Tensor]]


class TinyResNet(nn.Module):
    """The dilated ResNet-50's shape in small: stride 8, layers of two blocks, the last two dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        before = 8
        for place, (layer, channels) in enumerate(zip(LAYERS, CHANNELS, strict=True)):
            reshape = nn.Sequential(conv1x1(before, channels, 2 if place == 1 else 1), nn.BatchNorm2d(channels))
            first = Bottleneck(before, channels // 4, 2 if place == 1 else 1, reshape)
            dilation = (1, 1, 2, 4)[place]
            self.add_module(layer, nn.Sequential(first, Bottleneck(channels, channels // 4, dilation=dilation)))
            before = channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Plain(nn.Module):
    """Heads, and how they are called."""

    def __init__(self, tasks: dict[str, int]) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.heads = nn.ModuleDict({task: FCNHead(CHANNELS[-1], outputs) for task, outputs in tasks.items()})
        for head in self.heads.values():
            head[3].p = 0.0

    def answer(self, task: str, features: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(self.heads[task](features), size=images.shape[2:], mode="bilinear", align_corners=True)

    def head_pairs(self) -> Pairs:
        return named(self.heads, "heads")


class PlainShared(Plain):
    def __init__(self, tasks: dict[str, int]) -> None:
        super().__init__(tasks)
        self.net = TinyResNet()

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.net(images)
        return [self.answer(task, features, images) for task in self.tasks]

    def pairs(self) -> Pairs:
        yield from self.head_pairs()
        yield from named(self.net, "pool.body", "shared")


class PlainStitched(Plain):
    def __init__(self, tasks: dict[str, int]) -> None:
        super().__init__(tasks)
        self.nets = nn.ModuleDict({task: TinyResNet() for task in tasks})
        self.mixes = nn.ParameterList(torch.rand(len(tasks), len(tasks)) for _ in LAYERS[1:])

    def forward(self, images: Tensor) -> list[Tensor]:
        read = [net.maxpool(net.relu(net.bn1(net.conv1(images)))) for net in self.nets.values()]
        for place, layer in enumerate(LAYERS):
            if place:
                mix = self.mixes[place - 1]
                read = [sum(mix[i, j] * x for j, x in enumerate(read)) for i in range(len(read))]  # type: ignore[misc]
            read = [net.get_submodule(layer)(x) for net, x in zip(self.nets.values(), read, strict=True)]
        return [self.answer(task, x, images) for task, x in zip(self.tasks, read, strict=True)]

    def pairs(self) -> Pairs:
        yield from self.head_pairs()
        for task, net in self.nets.items():
            yield from named(net, f"own.{task}.body", "shared")
        for place, mix in enumerate(self.mixes):
            yield f"stitches.{place}.weight", mix


class PlainMtan(Plain):
    """`gated`: as the later benchmarks, else with the paper's ladder. `own`: norms of shared convolutions for each task."""

    def __init__(self, tasks: dict[str, int], gated: bool, own: bool) -> None:
        super().__init__(tasks)
        self.net, self.gated = TinyResNet(), gated
        hidden = [c // 4 if gated else c for c in CHANNELS]
        rows = list(zip((0, *CHANNELS[1:]), hidden, CHANNELS, strict=True))
        self.masks = nn.ModuleDict({t: nn.ModuleList(mask(c + seen, h, c) for seen, h, c in rows) for t in tasks})
        blocks = carrying if gated else single
        following = CHANNELS if gated else (*CHANNELS, CHANNELS[-1])
        first = nn.ModuleList(blocks(a, b) for a, b in pairwise(following))
        self.blocks = nn.ModuleDict({task: with_own_norms(first) if own else first for task in tasks})
        self.own = own

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.net.maxpool(self.net.relu(self.net.bn1(self.net.conv1(images))))
        taps = []
        for layer in LAYERS:
            block1, block2 = self.net.get_submodule(layer)
            gate = block1(x)
            x = block2(gate)
            taps.append((gate if self.gated else x, x))
        return [self.answer(task, self.ladder(task, taps), images) for task in self.tasks]

    def ladder(self, task: str, taps: list[tuple[Tensor, Tensor]]) -> Tensor:
        carried = None
        for place, (gate, features) in enumerate(taps):
            seen = gate if carried is None else torch.cat([gate, carried], 1)
            carried = self.masks[task][place](seen) * features
            if place < len(self.blocks[task]):
                carried = self.blocks[task][place](carried)
            if place == 0:
                carried = F.max_pool2d(carried, 2)
        assert carried is not None
        return carried

    def pairs(self) -> Pairs:
        yield from self.head_pairs()
        yield from named(self.net, "pool.body", "shared")
        for task, stages in self.masks.items():
            for place, stage in enumerate(stages):
                start = f"ladder.stages.{place}.masks.{task}"
                for at, (conv, norm) in enumerate(((stage[0], stage[1]), (stage[3], stage[4])), 1):
                    yield from named(conv, f"{start}.conv{at}")
                    yield from named(norm, f"{start}.norm{at}", "")
        for task in self.tasks if self.own else self.tasks[:1]:
            for place, block in enumerate(self.blocks[task]):
                yield from self.block_pairs(place, block, task if self.own else "shared")

    def block_pairs(self, place: int, block: nn.Module, owner: str) -> Pairs:
        if not self.gated:
            yield from named(block[0], f"ladder.stages.{place}.conv")  # type: ignore[index]
            yield from named(block[1], f"ladder.stages.{place}.norm", owner)  # type: ignore[index]
            return
        start = f"ladder.blocks.{place}"
        for at in (1, 2, 3):
            yield from named(block.get_submodule(f"conv{at}"), f"{start}.conv{at}")
            yield from named(block.get_submodule(f"bn{at}"), f"{start}.norm{at}", owner)
        yield from named(block.get_submodule("downsample.0"), f"{start}.shortcut")
        yield from named(block.get_submodule("downsample.1"), f"{start}.norm4", owner)


def mask(seen: int, hidden: int, channels: int) -> nn.Sequential:
    first, second = nn.Conv2d(seen, hidden, 1), nn.Conv2d(hidden, channels, 1)
    return nn.Sequential(first, nn.BatchNorm2d(hidden), nn.ReLU(), second, nn.BatchNorm2d(channels), nn.Sigmoid())


def carrying(channels: int, out: int) -> Bottleneck:
    return Bottleneck(channels, out // 4, 1, nn.Sequential(conv1x1(channels, out), nn.BatchNorm2d(out)))


def single(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())


def with_own_norms(blocks: nn.ModuleList) -> nn.ModuleList:
    """The same convolutions, other batch norms."""
    shared = {id(p): p for m in blocks.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()}
    return copy.deepcopy(blocks, memo=dict(shared))


def named(module: nn.Module, start: str, owner: str | None = None) -> Pairs:
    """A module's tensors under our names. `owner`: whose batch norms these are, "" where they lie in a mask; None: as in torch."""
    names = {
        "weight": "affine.weight",
        "bias": "affine.bias",
        "running_mean": "statistics.mean",
        "running_var": "statistics.var",
    }
    for path, part in module.named_modules():
        held = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
        for name, value in held.items():
            place = f"{start}.{path}" if path else start
            if owner is not None and isinstance(part, nn.BatchNorm2d):
                if name not in names:
                    continue
                group, leaf = names[name].split(".")
                yield f"{place}.{group}.{owner}.{leaf}" if owner else f"{place}.{group}.{leaf}", value
            else:
                yield f"{place}.{name}", value
