"""Two processes train one dense run: gradients of the whole batch, also where one of them has no labels of a task."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dense_tasks.config import load_config
from dense_tasks.data.frames import DenseBatch
from dense_tasks.training import prepare_training, train
from mtan_core.parallel import ALONE, Group, ProcessGroup
from tests.dense_tasks.conftest import TINY
from tests.together import Both


def gradients(
    root: Path, run: Path, group: Group, changes: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Of the last of two steps in float64; the second half of the batch has no depth."""
    config = load_config("segnet", None, [*TINY, "batch_size=4", *changes])
    whole = prepare_training(config, root, run).trainer.batch("images", 0)
    whole.labels["depth"][2:] = 0
    torch.manual_seed(0)
    training = prepare_training(config, root, run, group=group)
    step = training.trainer.training
    training.network.double().train()
    step.weighting.double()
    part = group.part(4)
    own = DenseBatch(whole.images[part].double(), {name: values[part] for name, values in whole.labels.items()})
    for _ in range(2):
        outcomes = step({"images": own})
    assert int(outcomes["depth"].seen) == int((whole.labels["depth"] > 0).sum())
    made = {name: p.grad for name, p in training.network.named_parameters() if p.grad is not None}
    return made, step.weighting.weights()


def gradients_together(root: Path, run: Path, changes: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, float]]:
    return gradients(root, run, ProcessGroup(), changes)


@pytest.mark.parametrize("weighting", ["equal", "uncertainty", "gradnorm", "pcgrad"])
@pytest.mark.parametrize("method", ["mtan", "split-standard"])
def test_gradients_are_those_of_the_whole_batch(
    both: Both, root: Path, tmp_path: Path, method: str, weighting: str
) -> None:
    changes = (f"method={method}", f"weighting.kind={weighting}")
    alone, weights = gradients(root, tmp_path / "unused", ALONE, changes)
    for made, seen in both(gradients_together, root, tmp_path / "unused", changes):
        assert made.keys() == alone.keys() and seen == pytest.approx(weights, abs=1e-9)
        for name, gradient in alone.items():
            assert_close(made[name], gradient, rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def train_together(root: Path, run: Path, *changes: str) -> dict[str, Any]:
    config = load_config("segnet", None, [*TINY, *changes])
    return train(config, root, run, group=ProcessGroup())


def test_two_processes_make_the_run_of_one(both: Both, root: Path, tmp_path: Path) -> None:
    changes = ("method=mtan", "batch_size=2", "augment.mirror=true", "augment.scales=[1.0, 1.5]", "optimizer.lr=1e-6")
    one = train(load_config("segnet", None, [*TINY, *changes]), root, tmp_path / "one")
    two, told = both(train_together, root, tmp_path / "two", *changes)
    assert two == told == json.loads((tmp_path / "two" / "summary.json").read_text())
    assert (one["images"], one["steps"], two["workers"]) == (two["images"], two["steps"], 2)
    first, second = (pd.read_parquet(tmp_path / name / "metrics.parquet") for name in ("one", "two"))
    assert first[["epoch", "step", "task", "pixels"]].equals(second[["epoch", "step", "task", "pixels"]])
    for column in ("loss", "val_loss", "val_miou", "val_angle_median"):
        assert second[column].to_numpy() == pytest.approx(first[column].to_numpy(), rel=1e-3, nan_ok=True)
