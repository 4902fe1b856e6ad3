"""The attention network for each task alone: a SegNet with masks, for each task."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.segnet_mtan import SegNetMtan
    from mtan_core.dense import Apart

    return Apart(tasks, lambda one: SegNetMtan(one, options))


def on_backbone(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.backbones import mtan
    from mtan_core.dense import Apart

    return Apart(tasks, lambda one: mtan(one, options))


METHOD = DenseMethod(
    name="stan",
    summary="The single-task attention network: a network with attention masks for each task; tasks learn apart.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019, section 4.1.2",
    build=build,
    on_backbone=on_backbone,
    paper={"norm": "shared"},
    one_task=True,
    published_multiple=4.56,
)
