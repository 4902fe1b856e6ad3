"""MTAN over a Wide ResNet formula by formula, written from the papers: the independent answer the network is held to.

Everything is taken from a network's state dict by name; nothing of the package's arithmetic is used.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]


class Oracle:
    """One task's forward pass; `training` normalises by the batch, else by running statistics."""

    def __init__(self, state: State, task: str, training: bool, head_pool: str = "global") -> None:
        self.state, self.task, self.training, self.head_pool = state, task, training, head_pool

    def __call__(self, images: Tensor) -> Tensor:
        taps = self.pool(images)
        carried = None
        for j, tap in enumerate(taps):
            seen = tap if carried is None else torch.cat([tap, F.max_pool2d(carried, 2)], 1)
            carried = self.carry(j, self.mask(j, seen) * tap)
        assert carried is not None
        pooled = F.avg_pool2d(carried, 8).flatten(1) if self.head_pool == "8x8" else carried.mean((2, 3))
        return F.linear(pooled, self.state[f"heads.{self.task}.weight"], self.state[f"heads.{self.task}.bias"])

    def pool(self, images: Tensor) -> list[Tensor]:
        x = self.conv("pool.stem", images, padding=1)
        taps = [x]
        groups = sorted({name.split(".")[2] for name in self.state if name.startswith("pool.groups.")})
        for g in groups:
            blocks = sorted({int(name.split(".")[3]) for name in self.state if name.startswith(f"pool.groups.{g}.")})
            for b in blocks:
                x = self.block(f"pool.groups.{g}.{b}", x, stride=2 if b == 0 else 1)
            taps.append(x)
        taps[-1] = F.relu(self.shared_norm("pool.last_norm", x))
        return taps

    def block(self, name: str, x: Tensor, stride: int) -> Tensor:
        y = self.conv(f"{name}.conv1", F.relu(self.shared_norm(f"{name}.norm1", x)), padding=1)
        y = self.conv(f"{name}.conv2", F.relu(self.shared_norm(f"{name}.norm2", y)), stride=stride, padding=1)
        short = self.conv(f"{name}.shortcut", x, stride=stride) if f"{name}.shortcut.weight" in self.state else x
        return y + short

    def mask(self, j: int, seen: Tensor) -> Tensor:
        name = f"ladder.stages.{j}.masks.{self.task}"
        hidden = F.relu(self.own_norm(f"{name}.norm1", self.conv(f"{name}.conv1", seen)))
        return torch.sigmoid(self.own_norm(f"{name}.norm2", self.conv(f"{name}.conv2", hidden)))

    def carry(self, j: int, selected: Tensor) -> Tensor:
        name = f"ladder.stages.{j}"
        return F.relu(self.shared_norm(f"{name}.norm", self.conv(f"{name}.conv", selected, padding=1)))

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], stride, padding)

    def shared_norm(self, name: str, x: Tensor) -> Tensor:
        affine = self.task if f"{name}.affine.{self.task}.weight" in self.state else "shared"
        statistics = self.task if f"{name}.statistics.{self.task}.mean" in self.state else "shared"
        return self.norm(f"{name}.affine.{affine}", f"{name}.statistics.{statistics}", x)

    def own_norm(self, name: str, x: Tensor) -> Tensor:
        return self.norm(f"{name}.affine", f"{name}.statistics", x)

    def norm(self, affine: str, statistics: str, x: Tensor) -> Tensor:
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, var = self.state[f"{statistics}.mean"], self.state[f"{statistics}.var"]
        scaled = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
        return scaled * self.state[f"{affine}.weight"][:, None, None] + self.state[f"{affine}.bias"][:, None, None]
