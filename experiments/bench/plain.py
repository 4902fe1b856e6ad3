"""The plain network and loop of MTAN's paper, which `bench step` compares with.

Liu, Johns, Davison, *End-to-End Multi-Task Learning with Attention* (CVPR 2019), section 3 and its Decathlon experiment, in
torch's plainest style: contiguous fp32 tensors, torch's defaults, one domain after the other. Domains are numbers here and
modules are named as in the authors' checkpoints, so that these load without a translation.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-activation residual block; as in the authors' code the stride sits in the second convolution."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, stride=stride, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return out + self.shortcut(x)


def _group(inside: int, outside: int, blocks: int) -> nn.Sequential:
    first = Block(inside, outside, stride=2)
    return nn.Sequential(first, *(Block(outside, outside, stride=1) for _ in range(blocks - 1)))


def _attention(inside: int, outside: int) -> nn.Sequential:
    """The mask of one domain and stage (equation 2 of the paper)."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 1), nn.BatchNorm2d(outside), nn.ReLU(),
        nn.Conv2d(outside, outside, 1), nn.BatchNorm2d(outside), nn.Sigmoid(),
    )  # fmt: skip


def _onward(inside: int, outside: int) -> nn.Sequential:
    """What all domains share behind the masks of one stage."""
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU())


class PlainMtan(nn.Module):
    """MTAN on a Wide-ResNet; `forward(images, k)` gives the logits of domain number k.

    `classes` holds the domains' class counts in the order of their numbers. Images are (B, 3, H, W), normalised, H and W at
    least 64; the head averages an 8x8 window, so that of a 9x9 map (72 pixels) the last row and column are dropped.
    """

    def __init__(self, classes: Sequence[int], depth: int = 28, width: int = 4) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        taps = [16, 16 * width, 32 * width, 64 * width]
        after = [*taps[1:], taps[-1]]
        self.conv1 = nn.Conv2d(3, taps[0], 3, padding=1)
        self.layer1 = _group(taps[0], taps[1], blocks)
        self.layer2 = _group(taps[1], taps[2], blocks)
        self.layer3 = _group(taps[2], taps[3], blocks)
        self.bn1 = nn.BatchNorm2d(taps[3], momentum=0.9)
        self.linear = nn.ModuleList(nn.Sequential(nn.Linear(taps[3], n)) for n in classes)
        gates = [taps[0], *(2 * tap for tap in taps[1:])]
        self.encoder_att = nn.ModuleList(
            nn.ModuleList(_attention(gate, tap) for gate, tap in zip(gates, taps, strict=True)) for _ in classes
        )
        self.encoder_block_att = nn.ModuleList(_onward(tap, out) for tap, out in zip(taps, after, strict=True))

    def pool(self, x: Tensor) -> list[Tensor]:
        """The shared features: stem, groups 1 and 2, and group 3 after batch norm and ReLU."""
        g0 = self.conv1(x)
        g1 = self.layer1(g0)
        g2 = self.layer2(g1)
        return [g0, g1, g2, F.relu(self.bn1(self.layer3(g2)))]

    def forward(self, x: Tensor, k: int) -> Tensor:
        """Logits (B, classes of domain k) of images (B, 3, H, W)."""
        shared = self.pool(x)
        carried = shared[0]
        attention = self.encoder_att.get_submodule(str(k))
        for j, features in enumerate(shared):
            mask = attention.get_submodule(str(j))(features if j == 0 else torch.cat((features, carried), dim=1))
            carried = self.encoder_block_att[j](mask * features)
            if j < len(shared) - 1:
                carried = F.max_pool2d(carried, 2)
        return self.linear[k](F.avg_pool2d(carried, 8).flatten(1))


def plain_loop(
    network: PlainMtan, batches: Mapping[int, tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer
) -> Callable[[], int]:
    """One round of the plain loop as a call: each domain in turn forward, backward and one optimiser step.

    `batches[k]` holds images (B, 3, H, W) and labels (B,) of domain number k. The call returns the images it saw.
    """
    network.train()

    def one_round() -> int:
        for k, (images, labels) in batches.items():
            optimizer.zero_grad()
            F.cross_entropy(network(images, k), labels).backward()
            optimizer.step()
        return sum(len(labels) for _, labels in batches.values())

    return one_round
