"""The Multi-Task Attention Network: one that is shared, and attention masks of each task's own that select from it."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.segnet_mtan import SegNetMtan

    return SegNetMtan(tasks, options)


def on_backbone(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.backbones import mtan

    return mtan(tasks, options)


METHOD = DenseMethod(
    name="mtan",
    summary="The Multi-Task Attention Network: one that is shared, and attention masks of each task's own that select from it.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019",
    build=build,
    on_backbone=on_backbone,
    paper={"norm": "shared"},
    published_multiple=1.77,
)
