"""What Ray's workers are started with."""

from threading import Thread

import ray
import torch

from experiments.bench.search import memory
from experiments.cluster.resources import ResourcesConfig
from experiments.cluster.session import cluster
from mtan_core.memory import keep_memory

BLOCKS, BLOCK = 400, 2**18  # 400 tensors of 1 MiB


@ray.remote
def held_after(trials: int) -> list[int]:
    """Bytes that a worker holds after each of some trials, which train in a new thread each and free all they had."""
    import os

    held = []
    for _ in range(trials):
        training = Thread(target=_train)
        training.start()
        training.join()
        held.append(memory(os.getpid()))
    return held


def _train() -> None:
    keep_memory()
    _ = [torch.ones(BLOCK) for _ in range(BLOCKS)]


def test_a_worker_that_trains_one_trial_after_the_other_does_not_grow() -> None:
    with cluster(None, ResourcesConfig(cpus=1)):
        held = ray.get(held_after.remote(6))
    assert held[-1] - held[0] < 100 * 2**20, held
