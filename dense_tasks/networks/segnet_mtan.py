"""The Multi-Task Attention Network on SegNet."""

from jaxtyping import Float
from torch import Tensor, nn

from dense_tasks.networks.method import Options, Tasks
from mtan_core.dense import HeadedNetwork, apart, whole
from mtan_core.ladder import DenseLadder
from mtan_core.pools import Tap
from mtan_core.segments import Segments
from mtan_core.segnet import SegNet


class SegNetMtan(HeadedNetwork):
    """A shared SegNet, and attention masks of each task's own that select from it (Liu et al. 2019, section 3.2)."""

    def __init__(self, tasks: Tasks, options: Options) -> None:
        assert options.filters is not None
        super().__init__(tasks, options.filters[0])
        self.pool = SegNet(options.filters)
        self.divisor = self.pool.divisor
        self.ladder = DenseLadder(self.pool.stages, self.pool.decoder_stages, options.norm, options.mask_activation)
        for task in tasks:
            self.ladder.add_task(task)

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels h w"]]:
        return apart(self.ladder(*self._taps(images)), list(self.heads))

    def masks(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, list[Float[Tensor, "batch _ _ _"]]]:
        stages = [apart(mask, list(self.heads)) for mask in self.ladder.masks(*self._taps(images))]
        return {task: [stage[task] for stage in stages] for task in self.heads}

    def last_shared(self) -> nn.Conv2d | None:
        return self.pool.last_conv

    def _taps(self, images: Tensor) -> tuple[list[Tap], list[Tap], Segments]:
        down, up = self.pool(images, whole(images))
        return down, up, Segments(tuple(self.heads), (len(images),) * len(self.heads))

    def _per_task(self) -> nn.Module:
        return self.ladder
