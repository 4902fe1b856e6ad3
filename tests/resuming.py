"""Runs that are broken off, and whether two runs ended alike."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from mtan_core.checkpoint import checkpoints, read_tensors


class Killed(BaseException):
    """Stands for SIGKILL between two steps: no checkpoint is written any more."""


def after(steps: int, kill: bool = False) -> Callable[[], bool]:
    """A `stop` that, after so many steps, asks for the end, or dies."""
    left = [steps]

    def stop() -> bool:
        left[0] -= 1
        if left[0] == 0 and kill:
            raise Killed
        return left[0] == 0

    return stop


def same_runs(broken: Path, whole: Path) -> None:
    """Weights bit for bit, metrics, and the summary but for times."""
    found, expected = (checkpoints(path / "checkpoints")[-1] for path in (broken, whole))
    assert found.name == expected.name
    tensors, wanted = read_tensors(found, "weights"), read_tensors(expected, "weights")
    assert set(tensors) == set(wanted)
    assert [name for name in wanted if not torch.equal(tensors[name], wanted[name])] == []
    pd.testing.assert_frame_equal(
        pd.read_parquet(broken / "metrics.parquet"), pd.read_parquet(whole / "metrics.parquet"), check_exact=True
    )
    summaries = [json.loads((path / "summary.json").read_text()) for path in (broken, whole)]
    here = {"seconds": 0, "commit": ""}
    assert summaries[0] | here == summaries[1] | here
    assert not list(broken.rglob(".tmp-*")) and not list(broken.rglob(".old-*"))
