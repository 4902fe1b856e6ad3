"""Threads that compute parts of one step at the same time, each with its share of the processor's cores."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


class Workers:
    """`count` threads for the parts of a step that do not depend on each other, on the CPU.

    torch's own threads share the work of one operation and wait for each other after every one; threads that each take
    some tasks through the whole network wait once a step. Autograd, autocast and torch's operations release the
    interpreter, so that threads suffice. Results are in the order of the items, so that sums of them are deterministic.
    """

    def __init__(self, count: int, cores_each: int = 1) -> None:
        self.count, self.cores_each = count, cores_each
        self._pool = ThreadPoolExecutor(count, "step", initializer=torch.set_num_threads, initargs=(cores_each,))

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        """`function` of every item, in order. Raises what the first item to fail raised, after all have ended."""
        futures = [self._pool.submit(function, item) for item in items]
        errors = [error for future in futures if (error := future.exception())]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]


def cpu_workers(tasks: int) -> Workers | None:
    """Workers for a step of up to so many tasks with torch's number of threads; None where one thread does it all."""
    threads = torch.get_num_threads()
    count = min(threads, tasks)
    return Workers(count, threads // count) if count > 1 else None


def deal(sizes: Mapping[str, int], hands: int) -> list[list[str]]:
    """Tasks in their order, cut into at most `hands` parts of about equally many images."""
    total, before = sum(sizes.values()), 0
    parts: list[list[str]] = [[] for _ in range(hands)]
    for task, size in sizes.items():
        middle = before + size / 2
        parts[min(int(middle * hands / total), hands - 1)].append(task)
        before += size
    return [part for part in parts if part]
