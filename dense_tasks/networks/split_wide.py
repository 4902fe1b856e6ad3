"""One SegNet with a wider bottom, and a head for each task."""

from dense_tasks.networks.method import DenseMethod, Options, Tasks
from mtan_core.dense import DenseNetwork


def build(tasks: Tasks, options: Options) -> DenseNetwork:
    from dense_tasks.networks.split import Split

    return Split(tasks, options)


METHOD = DenseMethod(
    name="split-wide",
    summary="One SegNet with a wider bottom, and a head for each task.",
    source="Liu, Johns, Davison, End-to-end multi-task learning with attention, CVPR 2019, section 4.1.2",
    build=build,
    filters=(64, 128, 256, 512, 1024),
    published_multiple=1.75,
)
