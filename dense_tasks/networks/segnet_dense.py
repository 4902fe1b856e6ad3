"""SegNets of tasks that read a shared SegNet's features beside their own."""

from jaxtyping import Float
from torch import Tensor, nn

from dense_tasks.networks.method import Options, Tasks
from mtan_core.dense import HeadedNetwork, whole
from mtan_core.segments import Segments
from mtan_core.segnet import SegNet, SegNetStage, concatenated, pool, unpool


class SegNetDense(HeadedNetwork):
    """A shared SegNet and one for each task; what was shared joins a task's own after pooling and after unpooling."""

    def __init__(self, tasks: Tasks, options: Options) -> None:
        assert options.filters is not None
        finest = options.filters[0]
        super().__init__(tasks, finest)
        self.pool = SegNet(options.filters)
        self.own = nn.ModuleDict({task: SegNet(options.filters, wider=2) for task in tasks})
        self.divisor = self.pool.divisor
        # nothing reads the finest features of the shared decoder; the authors kept its block, of class scores' width
        spare = SegNetStage([finest, finest, next(iter(tasks.values()))])
        self.pool.decoder[0] = spare if options.spare_block else nn.Identity()
        if options.wide_block:
            for network in self.own.values():
                network.decoder[0] = SegNetStage([2 * finest, 2 * finest, finest])  # type: ignore[operator,assignment]

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels h w"]]:
        segments = whole(images)
        pooled, unpooled = self._shared(images, segments)
        return {task: self._own(net, images, pooled, unpooled, segments) for task, net in self.own.items()}  # type: ignore[arg-type]

    def _shared(self, images: Tensor, segments: Segments) -> tuple[list[Tensor], list[Tensor]]:
        """The shared network's pooled maps, the finest first, and its unpooled maps, the coarsest first."""
        pooled, places, x = [], [], images
        for stage in self.pool.encoder:
            x, where = pool(stage(x, segments).features)
            pooled.append(x)
            places.append(where)
        unpooled = []
        for level in range(len(pooled)):
            if level:
                x = self.pool.decoder[-level](x, segments).features
            x = unpool(x, places.pop())
            unpooled.append(x)
        return pooled, unpooled

    def _own(
        self, network: SegNet, x: Tensor, pooled: list[Tensor], unpooled: list[Tensor], segments: Segments
    ) -> Float[Tensor, "batch channels h w"]:
        places = []
        for stage, beside in zip(network.encoder, [None, *pooled[:-1]], strict=True):
            read = x if beside is None else concatenated(x, beside)
            x, where = pool(stage(read, segments).features)
            places.append(where)
        for stage, beside in zip(reversed(network.decoder), unpooled, strict=True):
            x = stage(concatenated(unpool(x, places.pop()), beside), segments).features
        return x

    def last_shared(self) -> nn.Conv2d | None:
        """The last that is read: that of the second finest decoder stage."""
        return self.pool.decoder[1].convs[-1].conv  # type: ignore[union-attr,index]
