"""One SegNet whose last features all heads read."""

from jaxtyping import Float
from torch import Tensor, nn

from dense_tasks.networks.method import Options, Tasks
from mtan_core.dense import HeadedNetwork, whole
from mtan_core.segnet import SegNet


class Split(HeadedNetwork):
    """Shared but for the heads ("Multi-Task, Split" in Liu et al. 2019, section 4.1.2)."""

    def __init__(self, tasks: Tasks, options: Options, deep: bool = False) -> None:
        assert options.filters is not None
        super().__init__(tasks, options.filters[0])
        self.pool = SegNet(options.filters, deep=deep)
        self.divisor = self.pool.divisor

    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels h w"]]:
        _, up = self.pool(images, whole(images))
        return dict.fromkeys(self.tasks, up[-1].features)

    def last_shared(self) -> nn.Conv2d | None:
        return self.pool.last_conv
