"""Dense: a SegNet for each task, which also reads all features of a shared one."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.segnet_dense import SegNetDense

    return SegNetDense(tasks, options)


METHOD = DenseMethod(
    name="dense",
    summary="A shared SegNet, and one for each task that reads the shared one's features beside its own.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019, section 4.1.2",
    build=build,
    paper={"spare_block": True, "wide_block": True, "initialisation": "xavier_uniform"},
    published_multiple=4.95,
)
