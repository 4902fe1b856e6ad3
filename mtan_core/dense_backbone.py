"""Dense networks on any backbone: hard sharing, cross-stitch and MTAN, with heads on its last, small maps."""

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.backbone import Backbone, calm
from mtan_core.deeplab import BottleneckLadder
from mtan_core.dense import DenseNetwork, apart, whole
from mtan_core.ladder import Ladder
from mtan_core.norm import TaskNorm
from mtan_core.pools import Tap
from mtan_core.segments import Segments

Head = Callable[[int, int], nn.Module]  # made of the channels that it reads and those that it gives
Tasks = Mapping[str, int]


class UpsampledNetwork(DenseNetwork):
    """A network whose heads read small maps; their outputs are enlarged to the images' size (bilinear, corners aligned).

    The dropout of heads is switched off: what a step draws must not depend on what ran before.
    """

    def __init__(self, tasks: Tasks, channels: int, head: Head, divisor: int = 1) -> None:
        super().__init__(tasks)
        self.divisor = divisor
        self.heads = nn.ModuleDict({task: head(channels, outputs) for task, outputs in tasks.items()})
        calm(self.heads)

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels _ _"]]:
        """What each task's head reads."""
        raise NotImplementedError

    def outputs(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch _ h w"]]:
        made = {task: self.heads[task](features) for task, features in self.features(images).items()}
        size = images.shape[-2:]
        return {task: F.interpolate(x, size=size, mode="bilinear", align_corners=True) for task, x in made.items()}


class SharedBackbone(UpsampledNetwork):
    """Hard parameter sharing: one backbone, whose last features all heads read (Caruana 1997)."""

    def __init__(self, tasks: Tasks, pool: Backbone, head: Head, divisor: int = 1) -> None:
        super().__init__(tasks, pool.stages[-1].features, head, divisor)
        self.pool = pool

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels _ _"]]:
        return dict.fromkeys(self.tasks, self.pool(images, whole(images))[-1].features)

    def last_shared(self) -> nn.Conv2d | nn.Linear | None:
        return self.pool.last_layer


class StitchedBackbones(UpsampledNetwork):
    """A backbone for each task; at each node but the last a stitch mixes their features (Misra et al. 2016).

    `pools` are in the order of `tasks`, and one more than `stitches` are the nodes of each; a stitch makes of the tasks' features
    those that each task goes on with.
    """

    def __init__(
        self, tasks: Tasks, pools: Sequence[Backbone], stitches: Sequence[nn.Module], head: Head, divisor: int = 1
    ) -> None:
        super().__init__(tasks, pools[0].stages[-1].features, head, divisor)
        self.own = nn.ModuleDict(dict(zip(tasks, pools, strict=True)))
        self.stitches = nn.ModuleList(stitches)

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels _ _"]]:
        walks = [pool.walk(images, whole(images)) for pool in self.own.values()]  # type: ignore[operator]
        read = [next(walk) for walk in walks]
        for stitch in self.stitches:
            read = [walk.send(mixed) for walk, mixed in zip(walks, stitch(read), strict=True)]
        return dict(zip(self.own, read, strict=True))


class MaskedBackbone(UpsampledNetwork):
    """MTAN: one backbone, and attention masks of each task's own that select from its stages (Liu et al. 2019)."""

    def __init__(
        self, tasks: Tasks, pool: Backbone, ladder: Ladder | BottleneckLadder, head: Head, divisor: int = 1
    ) -> None:
        super().__init__(tasks, ladder.out_channels, head, divisor)
        self.pool, self.ladder = pool, ladder
        for task in tasks:
            ladder.add_task(task)
            for module in ladder.modules():
                if isinstance(module, TaskNorm):
                    module.add_task(task)

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels _ _"]]:
        return apart(self.ladder(*self._taps(images)), self.tasks)

    def masks(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, list[Float[Tensor, "batch _ _ _"]]]:
        stages = [apart(mask, self.tasks) for mask in self.ladder.masks(*self._taps(images))]
        return {task: [stage[task] for stage in stages] for task in self.tasks}

    def last_shared(self) -> nn.Conv2d | nn.Linear | None:
        return self.pool.last_layer

    def _taps(self, images: Tensor) -> tuple[list[Tap], Segments]:
        taps = self.pool(images, whole(images))
        return taps, Segments(self.tasks, (len(images),) * len(self.tasks))

    def _per_task(self) -> nn.Module:
        return self.ladder
