"""One SegNet with twice as many convolutions, and a head for each task."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.split import Split

    return Split(tasks, options, deep=True)


METHOD = DenseMethod(
    name="split-deep",
    summary="One SegNet with twice as many convolutions, and a head for each task.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019, section 4.1.2",
    build=build,
    published_multiple=2.0,
)
