"""Networks for who works in Python."""

from typing import Any

from dense_tasks.networks import NYUV2_TASKS, build_network, find_method
from dense_tasks.networks.method import Tasks
from mtan_core.dense import DenseNetwork


def build(method: str = "mtan", tasks: Tasks | None = None, *, paper: bool = True, **options: Any) -> DenseNetwork:
    """The network of a method as in the paper, with fresh weights; a plain `torch.nn.Module`.

    `tasks` are `{name: output channels}`, by default NYUv2's three (13 classes), or for a method of one task its semantic
    classes alone. With `paper=False` it is built as this project would; for `options` see `dense_tasks.networks.Options`.
    """
    if tasks is None:
        tasks = {"semantic": NYUV2_TASKS["semantic"]} if find_method(method).one_task else NYUV2_TASKS
    return build_network(method, tasks, paper=paper, **options)
