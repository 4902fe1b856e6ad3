"""Two processes that train together, kept for the whole session: starting them takes longer than most tests."""

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Both = Callable[..., list[Any]]  # (function, *arguments) -> what each of the two returned


@contextmanager
def two_processes() -> Iterator[Both]:
    """Yield what calls a function (of a module) in both processes, which are a gloo group."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    context = get_context("spawn")
    pools = [ProcessPoolExecutor(1, context, _join, (rank, port)) for rank in range(2)]

    def both(function: Callable[..., Result], *arguments: Any) -> list[Result]:
        running = [pool.submit(function, *arguments) for pool in pools]
        return [future.result(timeout=120) for future in running]

    try:
        yield both
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def _join(rank: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
