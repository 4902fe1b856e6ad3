"""Hard parameter sharing: one network whose last features all heads read."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.split import Split

    return Split(tasks, options)


def on_backbone(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.backbones import hard_sharing

    return hard_sharing(tasks, options)


METHOD = DenseMethod(
    name="hard-sharing",
    summary="One network, and a head for each task; on SegNet this is split-standard.",
    source="Caruana, Multitask learning, Machine Learning 28, 1997",
    build=build,
    on_backbone=on_backbone,
    published_multiple=1.0,
)
