"""The dense networks formula by formula over a state dict with the authors' names: what ours are held to.

Nothing of the package is used. Tasks are numbers here, as in the authors' names. `own` marks norms that every task has for
itself: their names then end in `@<task>`.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
LEVELS = 5


def authors_state(method: str, filters: tuple[int, ...], outputs: tuple[int, ...], own: bool = False) -> State:
    """Random float64 weights under the authors' names."""
    made = _Maker(method, filters, outputs, own)
    for level in range(len(filters)):
        (made.streams if method in ("cross-stitch", "dense") else made.shared)(level)
        if method in ("mtan", "stan"):
            made.ladder(level)
    if method == "cross-stitch":
        made.state |= {"cs_unit_encoder": torch.rand(4, len(outputs)), "cs_unit_decoder": torch.rand(5, len(outputs))}
    for t, channels in enumerate(outputs):
        head = "pred_task" if method in ("single", "stan") else f"pred_task{t + 1}"
        made.conv(f"{head}.0", filters[0], filters[0])
        made.conv(f"{head}.1", filters[0], channels, 1)
    if method not in ("single", "stan"):
        made.state["logsigma"] = torch.full((len(outputs),), -0.5)
    return {name: value.double() for name, value in made.state.items()}


class _Maker:
    def __init__(self, method: str, filters: tuple[int, ...], outputs: tuple[int, ...], own: bool) -> None:
        self.method, self.filters, self.outputs, self.own = method, filters, outputs, own
        self.state: State = {}

    def streams(self, level: int) -> None:
        """A SegNet for each task, and for Dense a shared one."""
        here, above, first, rows = self.filters[level], self.filters[max(level - 1, 0)], level == 0, 1 + (level > 1)
        wide = 2 if self.method == "dense" else 1
        for t in range(len(self.outputs)):
            self.row(f"encoder_block_t.{t}.{level}", 3 if first else wide * above, *[here] * (rows + 1))
            inside = [wide * here] * (rows + 1) if first else [wide * here, *[above] * rows]
            self.row(f"decoder_block_t.{t}.{level}", *inside, above)
        if self.method == "dense":
            self.row(f"encoder_block.{level}", 3 if first else above, *[here] * (rows + 1))
            self.row(f"decoder_block.{level}", here, *[above] * rows, self.outputs[0] if first else above)

    def shared(self, level: int) -> None:
        here, above, rows = self.filters[level], self.filters[max(level - 1, 0)], 1 + (level > 1)
        each = 2 if self.method == "split-deep" else 1
        self.row(f"encoder_block.{level}", above if level else 3, *[here] * each)
        self.row(f"decoder_block.{level}", here, *[above] * each)
        for side, channels in (("enc", here), ("dec", above)):
            for k in range(rows):
                self.row(f"conv_block_{side}.{level}{f'.{k}' if rows > 1 else ''}", *[channels] * (each + 1))

    def ladder(self, level: int) -> None:
        here, above = self.filters[level], self.filters[max(level - 1, 0)]
        deepest = level == LEVELS - 1
        self.carry(f"encoder_block_att.{level}", here, here if deepest else self.filters[level + 1])
        self.carry(f"decoder_block_att.{level}", here, here if deepest else above)
        for t in range(len(self.outputs)):
            self.attention(f"encoder_att.{t}.{level}", 2 * here if level else here, here)
            self.attention(f"decoder_att.{t}.{level}", here + above, above)

    def norm(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = torch.rand(channels) + 0.5
        self.state[f"{name}.bias"] = torch.randn(channels) * 0.2
        self.state[f"{name}.running_mean"] = torch.randn(channels) * 0.2
        self.state[f"{name}.running_var"] = torch.rand(channels) + 0.5

    def conv(self, name: str, before: int, after: int, kernel: int = 3) -> None:
        self.state[f"{name}.weight"] = torch.randn(after, before, kernel, kernel) / (before * kernel**2) ** 0.5
        self.state[f"{name}.bias"] = torch.randn(after) * 0.1

    def row(self, name: str, *channels: int) -> None:
        for k, (before, after) in enumerate(pairwise(channels)):
            self.conv(f"{name}.{3 * k}", before, after)
            self.norm(f"{name}.{3 * k + 1}", after)

    def attention(self, name: str, before: int, after: int) -> None:
        for place, inputs in ((0, before), (3, after)):
            self.conv(f"{name}.{place}", inputs, after, 1)
            self.norm(f"{name}.{place + 1}", after)

    def carry(self, name: str, before: int, after: int) -> None:
        self.conv(f"{name}.0", before, after)
        for norm in [f"{name}.1@{t}" for t in range(len(self.outputs))] if self.own else [f"{name}.1"]:
            self.norm(norm, after)


class Oracle:
    """One network; `training` normalises by the batch and moves the running statistics."""

    def __init__(self, method: str, state: State, tasks: int, training: bool = False, own: bool = False) -> None:
        self.method, self.state, self.tasks, self.training, self.own = method, state, tasks, training, own

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Raw outputs of the tasks one after the other."""
        features = {"cross-stitch": self.cross_stitch, "dense": self.dense}.get(self.method, self.attention)(images)
        return [self.head(t, one) for t, one in enumerate(features)]

    def attention(self, images: Tensor) -> Iterator[Tensor]:
        """SegNet, once; then for one task after the other its ladder, where the network has any."""
        down, places, x = [], [], images
        for level in range(LEVELS):
            gate = self.row(f"encoder_block.{level}", x)
            down.append((gate, self.rest("enc", level, gate)))
            x, where = F.max_pool2d(down[-1][1], 2, return_indices=True)
            places.append(where)
        up = []
        for level in reversed(range(LEVELS)):
            gate = F.max_unpool2d(x, places[level], 2)
            x = self.rest("dec", level, self.row(f"decoder_block.{level}", gate))
            up.append((gate, x))
        for t in range(self.tasks):
            yield self.ladder(t, down, up) if "encoder_att.0.0.0.weight" in self.state else x

    def ladder(self, t: int, down: list[tuple[Tensor, Tensor]], up: list[tuple[Tensor, Tensor]]) -> Tensor:
        carried = None
        for level, (gate, features) in enumerate(down):
            seen = gate if carried is None else torch.cat([gate, carried], 1)
            selected = self.mask(f"encoder_att.{t}.{level}", seen) * features
            carried = F.max_pool2d(self.carry(f"encoder_block_att.{level}", selected, t), 2)
        for level, (gate, features) in zip(reversed(range(LEVELS)), up, strict=True):
            assert carried is not None
            carried = F.interpolate(carried, scale_factor=2, mode="bilinear", align_corners=True)
            carried = self.carry(f"decoder_block_att.{level}", carried, t)
            carried = self.mask(f"decoder_att.{t}.{level}", torch.cat([gate, carried], 1)) * features
        assert carried is not None
        return carried

    def cross_stitch(self, images: Tensor) -> list[Tensor]:
        """The same mix for all streams (the authors)."""
        read, places = images, []
        pooled: list[Tensor] = []
        for level in range(LEVELS):
            if level:
                read = self.mixed(self.state["cs_unit_encoder"][level - 1], pooled)
            both = [
                F.max_pool2d(self.row(f"encoder_block_t.{t}.{level}", read), 2, return_indices=True)
                for t in range(self.tasks)
            ]
            pooled = [values for values, _ in both]
            places.append([where for _, where in both])
        for step, level in enumerate(reversed(range(LEVELS))):
            read = self.mixed(self.state["cs_unit_decoder"][step], pooled)
            unpooled = [F.max_unpool2d(read, where, 2) for where in places[level]]
            pooled = [self.row(f"decoder_block_t.{t}.{level}", x) for t, x in enumerate(unpooled)]
        return pooled

    def mixed(self, weights: Tensor, maps: list[Tensor]) -> Tensor:
        return torch.einsum("t,tbchw->bchw", weights, torch.stack(maps))

    def dense(self, images: Tensor) -> Iterator[Tensor]:
        pooled, places, x = [], [], images
        for level in range(LEVELS):
            x, where = F.max_pool2d(self.row(f"encoder_block.{level}", x), 2, return_indices=True)
            pooled.append(x)
            places.append(where)
        unpooled = {}
        for level in reversed(range(LEVELS)):
            unpooled[level] = F.max_unpool2d(x, places[level], 2)
            if level:
                x = self.row(f"decoder_block.{level}", unpooled[level])
        for t in range(self.tasks):
            x, wheres = images, []
            for level in range(LEVELS):
                seen = torch.cat([x, pooled[level - 1]], 1) if level else x
                x, where = F.max_pool2d(self.row(f"encoder_block_t.{t}.{level}", seen), 2, return_indices=True)
                wheres.append(where)
            for level in reversed(range(LEVELS)):
                seen = torch.cat([F.max_unpool2d(x, wheres[level], 2), unpooled[level]], 1)
                x = self.row(f"decoder_block_t.{t}.{level}", seen)
            yield x

    def rest(self, side: str, level: int, x: Tensor) -> Tensor:
        name = f"conv_block_{side}.{level}"
        for row in [name] if f"{name}.0.weight" in self.state else [f"{name}.0", f"{name}.1"]:
            x = self.row(row, x)
        return x

    def row(self, name: str, x: Tensor) -> Tensor:
        """Convolution, batch norm, ReLU, as often as there are such."""
        k = 0
        while f"{name}.{k}.weight" in self.state:
            x = F.relu(self.norm(f"{name}.{k + 1}", self.conv(f"{name}.{k}", x)))
            k += 3
        return x

    def mask(self, name: str, seen: Tensor) -> Tensor:
        hidden = F.relu(self.norm(f"{name}.1", self.conv(f"{name}.0", seen)))
        return torch.sigmoid(self.norm(f"{name}.4", self.conv(f"{name}.3", hidden)))

    def carry(self, name: str, x: Tensor, t: int) -> Tensor:
        return F.relu(self.norm(f"{name}.1@{t}" if self.own else f"{name}.1", self.conv(f"{name}.0", x)))

    def head(self, t: int, x: Tensor) -> Tensor:
        name = "pred_task" if "pred_task.0.weight" in self.state else f"pred_task{t + 1}"
        return self.conv(f"{name}.1", self.conv(f"{name}.0", x))

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        get: Callable[[str], Tensor] = lambda leaf: self.state[f"{name}.{leaf}"]  # noqa: E731
        return F.batch_norm(
            x, get("running_mean"), get("running_var"), get("weight"), get("bias"), self.training, 0.1, 1e-5
        )
