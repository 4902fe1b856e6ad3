"""The tasks: what is predicted for every pixel of an image.

A task is one file here that defines `task(dataset)`, which gives a `Task`; it is found by being there.
"""

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

from dense_tasks.datasets import DATASETS, Dataset
from dense_tasks.tasks.task import Task
from mtan_core.errors import UserError, nearest

__all__ = ["Task", "choose_tasks", "tasks"]

_FIRST = ("semantic", "depth", "normal")  # the order of the paper, and of what a network returns


def tasks(dataset: Dataset = DATASETS["nyuv2"]) -> dict[str, Task]:
    """All tasks by name, as they are on this data set: semantic, depth, normal, then others by name."""
    names = sorted(file.name for file in iter_modules(__path__) if file.name != "task")
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    made: list[Task] = [import_module(f"{__name__}.{name}").task(dataset) for name in names]
    return {task.name: task for task in made}


def choose_tasks(names: Sequence[str] | None, dataset: Dataset) -> dict[str, Task]:
    """The tasks named, by default those that the data set has labels of, in the one order.

    Raises UserError for an unknown name, one named twice, and none at all.
    """
    known = tasks(dataset)
    wanted = list(dataset.tasks if names is None else names)
    for name in wanted:
        if name not in known:
            raise UserError(f"Expected the name of a task, found '{name}'{nearest(name, known)}.")
        if wanted.count(name) > 1:
            raise UserError(f"Expected every task once, found '{name}' twice.")
    if not wanted:
        raise UserError(f"Expected at least one task, found none (known: {', '.join(known)}).")
    return {name: task for name, task in known.items() if name in wanted}
