"""Cross-stitch network: a SegNet for each task, whose features are mixed between the stages."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.segnet_cross_stitch import SegNetCrossStitch

    return SegNetCrossStitch(tasks, options)


def on_backbone(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.backbones import cross_stitch

    return cross_stitch(tasks, options)


METHOD = DenseMethod(
    name="cross-stitch",
    summary="A network for each task; between the stages each reads a learnt mix of all.",
    source="Misra, Shrivastava, Gupta, Hebert, Cross-stitch networks for multi-task learning, CVPR 2016",
    build=build,
    on_backbone=on_backbone,
    paper={"stitches": "row", "stitch_start": None, "initialisation": "xavier_uniform"},
    published_multiple=3.0,
)
