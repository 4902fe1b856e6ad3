"""A SegNet for each task."""

from dense_tasks.networks.hard_sharing import build, on_backbone
from dense_tasks.networks.method import DenseMethod

METHOD = DenseMethod(
    name="single",
    summary="A network for each task; tasks learn apart.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019, section 4.1.2",
    build=build,
    on_backbone=on_backbone,
    one_task=True,
    published_multiple=3.0,
)
