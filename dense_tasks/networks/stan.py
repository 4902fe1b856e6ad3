"""The attention network for each task alone: a SegNet with masks, for each task."""

from dense_tasks.networks.method import DenseMethod
from dense_tasks.networks.mtan import build, on_backbone

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
