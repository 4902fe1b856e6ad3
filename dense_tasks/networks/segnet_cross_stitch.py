"""Cross-stitch units between the SegNets of several tasks."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dense_tasks.networks.method import Options, Tasks
from mtan_core.dense import HeadedNetwork, whole
from mtan_core.segnet import SegNet, SegNetStage, pool, unpool


class Stitch(nn.Module):
    """Learnt mixes of the tasks' features: rows are the streams that read, columns those that are read.

    With "row" there is one row, which all streams read (the authors of MTAN; no stream has anything of its own but its
    convolutions and pooling indices). `start`: see `Options.stitch_start`.
    """

    def __init__(self, streams: int, options: Options) -> None:
        super().__init__()
        rows = streams if options.stitches == "matrix" else 1
        own = options.stitch_start
        weight = torch.ones(rows, streams)
        if own is not None and streams > 1:
            weight.fill_((1 - own) / (streams - 1) if rows > 1 else 1 / streams)
            if rows > 1:
                weight.fill_diagonal_(own)
        self.weight = nn.Parameter(weight)

    def forward(self, features: Sequence[Float[Tensor, "batch channels h w"]]) -> list[Tensor]:
        """What each stream reads next."""
        mixes = [_mix(row, features) for row in self.weight]
        return mixes if len(mixes) > 1 else mixes * len(features)


def _mix(weights: Float[Tensor, " streams"], features: Sequence[Tensor]) -> Tensor:
    mixed = weights[0] * features[0]
    for weight, feature in zip(weights[1:], features[1:], strict=True):
        mixed = mixed + weight * feature
    return mixed


class SegNetCrossStitch(HeadedNetwork):
    """A SegNet per task, stitched after every pooling but before the next stage, and before every unpooling.

    Each stream unpools its mix by its own indices.
    """

    def __init__(self, tasks: Tasks, options: Options) -> None:
        assert options.filters is not None
        super().__init__(tasks, options.filters[0])
        self.own = nn.ModuleDict({task: SegNet(options.filters) for task in tasks})
        self.divisor = 2 ** len(options.filters)
        self.stitches_down = nn.ModuleList(Stitch(len(tasks), options) for _ in options.filters[1:])
        self.stitches_up = nn.ModuleList(Stitch(len(tasks), options) for _ in options.filters)

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels h w"]]:
        segments = whole(images)
        read, places = [images] * len(self.own), []
        for level in range(len(self.stitches_up)):
            if level:
                read = self.stitches_down[level - 1](read)
            pooled = [pool(stage(x, segments).features) for stage, x in zip(self._stages(level), read, strict=True)]
            read = [one.values for one in pooled]
            places.append([one.places for one in pooled])
        for level, stitch in enumerate(self.stitches_up):
            mixed = zip(stitch(read), places.pop(), self._stages(-1 - level, up=True), strict=True)
            read = [stage(unpool(x, where), segments).features for x, where, stage in mixed]
        return dict(zip(self.own, read, strict=True))

    def _stages(self, level: int, up: bool = False) -> list[SegNetStage]:
        return [(net.decoder if up else net.encoder)[level] for net in self.own.values()]  # type: ignore[index,misc]
