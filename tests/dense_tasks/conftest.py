"""A tiny root, and runs on it, made once for all tests that train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dense_tasks.config import load_config
from dense_tasks.training import train
from tests.dense_tasks.roots import write_root

# The smallest networks and the shortest runs; threads = 1 so that a run can be continued bit for bit.
TINY = (
    "seed=3", "threads=1", "device=cpu", "network.filters=[3, 4]", "phases=[{epochs = 2}]", "optimizer.lr=0.01",
    "augment.mirror=false", "augment.scales=[1.0]",
)  # fmt: skip


def tiny(*changes: str) -> list[str]:
    """The words that make a run tiny, for `mtan dense train`."""
    return [word for change in (*TINY, *changes) for word in ("--set", change)]


def train_tiny(
    root: Path, run: Path, *changes: str, resume: bool = False, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Train a tiny network in this process; returns the summary."""
    return train(load_config("segnet", None, [*TINY, *changes]), root, run, resume, stop)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images to learn from and three to measure with, of 32x64 pixels; to be read only."""
    return write_root(tmp_path_factory.mktemp("dense") / "root", train=4, val=3)


@pytest.fixture(scope="session")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of MTAN, to be read only."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train_tiny(root, run, "phases=[{epochs = 3}]")
    return run


@pytest.fixture(scope="session")
def split(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a network without masks, to be read only."""
    run = tmp_path_factory.mktemp("split") / "run"
    train_tiny(root, run, "method=split-standard", "phases=[{epochs = 1}]")
    return run
