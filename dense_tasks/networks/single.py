"""A SegNet for each task."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.split import Split
    from mtan_core.dense import Apart

    return Apart(tasks, lambda one: Split(one, options))


METHOD = DenseMethod(
    name="single",
    summary="A SegNet for each task; tasks learn apart.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019, section 4.1.2",
    build=build,
    one_task=True,
    published_multiple=3.0,
)
