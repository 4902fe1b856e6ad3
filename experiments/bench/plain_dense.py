"""The plain SegNet and loop over tasks of MTAN's paper, which `bench dense` compares with.

Liu, Johns, Davison, *End-to-End Multi-Task Learning with Attention* (CVPR 2019), section 3 and its NYUv2 experiment, in torch's
plainest style: contiguous fp32 tensors, torch's defaults, one task after the other. Tasks are numbers here and modules are
named as in the authors' checkpoints, so that these load without a translation.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _attention(before: int, after: int) -> nn.Sequential:
    """The mask of one task and stage (equation 2 of the paper)."""
    return nn.Sequential(
        nn.Conv2d(before, after, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 1), nn.BatchNorm2d(after), nn.Sigmoid(),
    )  # fmt: skip


def _head(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, after, 1))


class PlainSegNetMtan(nn.Module):
    """MTAN on SegNet; `forward(images)` gives the tasks' raw outputs one after the other.

    `outputs` holds the tasks' channels in the order of their numbers. Images are (B, 3, H, W), H and W multiples of 32.
    The last two of `filters` are equal, or the authors' deepest decoder mask does not fit.
    """

    def __init__(self, outputs: Sequence[int] = (13, 1, 3), filters: Sequence[int] = (64, 128, 256, 512, 512)) -> None:
        super().__init__()
        levels, above, below = range(len(filters)), [filters[0], *filters], [*filters[1:], filters[-1]]
        self.encoder_block = nn.ModuleList(_conv(above[i] if i else 3, filters[i]) for i in levels)
        self.decoder_block = nn.ModuleList(_conv(filters[i], above[i]) for i in levels)
        self.conv_block_enc = nn.ModuleList(_repeat(filters[i], 1 if i < 2 else 2) for i in levels)
        self.conv_block_dec = nn.ModuleList(_repeat(above[i], 1 if i < 2 else 2) for i in levels)
        self.encoder_att = nn.ModuleList(
            nn.ModuleList(_attention(filters[i] * (2 if i else 1), filters[i]) for i in levels) for _ in outputs
        )
        self.decoder_att = nn.ModuleList(
            nn.ModuleList(_attention(filters[i] + above[i], above[i]) for i in levels) for _ in outputs
        )
        self.encoder_block_att = nn.ModuleList(_conv(filters[i], below[i]) for i in levels)
        self.decoder_block_att = nn.ModuleList(_conv(filters[i], above[i]) for i in levels)
        for number, channels in enumerate(outputs, 1):
            self.add_module(f"pred_task{number}", _head(filters[0], channels))
        self.logsigma = nn.Parameter(torch.full((len(outputs),), -0.5))

    def pool(self, x: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """What masks are made from and what they multiply, down and up."""
        down, up, places = [], [], []
        for first, rest in zip(self.encoder_block, self.conv_block_enc, strict=True):
            gate = first(x)
            down.append((gate, rest(gate)))
            x, where = F.max_pool2d(down[-1][1], 2, return_indices=True)
            places.append(where)
        for first, rest in zip(reversed(self.decoder_block), reversed(self.conv_block_dec), strict=True):
            gate = F.max_unpool2d(x, places.pop(), [2, 2])
            x = rest(first(gate))
            up.append((gate, x))
        return down, up

    def forward(self, x: Tensor) -> list[Tensor]:
        down, up = self.pool(x)
        return [self.task(number, down, up) for number in range(len(self.logsigma))]

    def task(self, t: int, down: list[tuple[Tensor, Tensor]], up: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The ladder and head of one task."""
        carried = down[0][0]
        for j, (gate, features) in enumerate(down):
            seen = torch.cat((gate, carried), dim=1) if j else gate
            mask = self.encoder_att.get_submodule(f"{t}.{j}")(seen)
            carried = F.max_pool2d(self.encoder_block_att[j](mask * features), 2)
        for j, (gate, features) in zip(reversed(range(len(up))), up, strict=True):
            carried = F.interpolate(carried, scale_factor=2, mode="bilinear", align_corners=True)
            carried = self.decoder_block_att[j](carried)
            carried = self.decoder_att.get_submodule(f"{t}.{j}")(torch.cat((gate, carried), dim=1)) * features
        return self.get_submodule(f"pred_task{t + 1}")(carried)


def _repeat(channels: int, times: int) -> nn.Sequential:
    """One convolution, or a row of several."""
    return (
        _conv(channels, channels) if times == 1 else nn.Sequential(*(_conv(channels, channels) for _ in range(times)))
    )


Losses = Sequence[Callable[[Tensor], Tensor]]  # of the raw outputs, by the tasks' numbers


def plain_loop(
    network: nn.Module, images: Tensor, losses: Losses, optimizer: torch.optim.Optimizer
) -> Callable[[], int]:
    """A training step as a call, which returns the number of images: the tasks' losses are added, as with equal weights."""
    network.train()

    def one_step() -> int:
        optimizer.zero_grad()
        total = sum((loss(output) for loss, output in zip(losses, network(images), strict=True)), torch.zeros(()))
        total.backward()
        optimizer.step()
        return len(images)

    return one_step
