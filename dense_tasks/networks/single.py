"""A SegNet for each task."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.split import Split
    from mtan_core.dense import Apart

    return Apart(tasks, lambda one: Split(one, options))


def on_backbone(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.backbones import hard_sharing
    from mtan_core.dense import Apart

    return Apart(tasks, lambda one: hard_sharing(one, options))


METHOD = DenseMethod(
    name="single",
    summary="A network for each task; tasks learn apart.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019, section 4.1.2",
    build=build,
    on_backbone=on_backbone,
    one_task=True,
    published_multiple=3.0,
)
