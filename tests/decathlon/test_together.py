"""Two processes train one Decathlon run: the same images, metrics and files as one process makes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from decathlon.config import load_config
from decathlon.data.store import open_store
from decathlon.training import prepare_training, train
from decathlon.training_images import training_images
from mtan_core.checkpoint import read_state
from mtan_core.errors import UserError
from mtan_core.parallel import Group, ProcessGroup
from tests.decathlon.conftest import TINY, Tiny
from tests.together import Both

JOINT = ("batch_size=9", "mixup=0.3", "ema=0.5", "augment.contrast=0.3")


def train_together(store: Path, run: Path, *changes: str) -> dict[str, Any]:
    config = load_config("quickstart", None, [*TINY, *changes])
    return train(config, str(store), run, resume=run.exists(), group=ProcessGroup())


def part(rank: int, size: int = 2) -> Group:
    group = Group()
    group.rank, group.size = rank, size
    return group


@pytest.mark.parametrize("protocol", ["train", "train+val"])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_parts_of_a_batch_are_the_batch(challenge: Tiny, protocol: str, mixup: float) -> None:
    config = load_config("small", None, [f"protocol={protocol}", f"mixup={mixup}", "image_size=24"])
    images = training_images(config, open_store(str(challenge.store)), "dtd", torch.device("cpu"))
    places = np.random.default_rng(0).permutation(len(images))[:9]
    whole, parts = images.batch(places, 5), [images.batch(places, 5, part(rank)) for rank in range(2)]
    assert_close(torch.cat([each.images for each in parts]), whole.images, rtol=0, atol=1e-5)
    assert torch.cat([each.labels for each in parts]).equal(whole.labels)
    assert {each.share for each in parts} == {whole.share}
    if whole.other_labels is not None:
        others = [each.other_labels for each in parts if each.other_labels is not None]
        assert torch.cat(others).equal(whole.other_labels)


@pytest.mark.parametrize(
    "changes",
    [
        JOINT,
        (*JOINT, "norm=shared"),
        ("sampling=proportional",),
        ("sampling=temperature",),
        ("sampling=round_robin",),
        ("sampling=sequential",),
    ],
    ids=lambda changes: changes[-1],
)
def test_two_processes_make_the_run_of_one(
    both: Both,
    challenge: Tiny,
    tmp_path: Path,
    changes: tuple[str, ...],
) -> None:
    """In fp32 sums differ in their last bits, which steps make larger: here they are small. Losses tell which images were seen."""
    changes = (*changes, "optimizer.lr=1e-6")
    one = train(load_config("quickstart", None, [*TINY, *changes]), str(challenge.store), tmp_path / "one")
    two, told = both(train_together, challenge.store, tmp_path / "two", *changes)
    assert two == told == json.loads((tmp_path / "two" / "summary.json").read_text())
    assert (one["workers"], two["workers"]) == (1, 2)
    assert (one["images"], one["steps"]) == (two["images"], two["steps"])
    first, second = (pd.read_parquet(tmp_path / name / "metrics.parquet") for name in ("one", "two"))
    assert first[["epoch", "step", "domain", "images"]].equals(second[["epoch", "step", "domain", "images"]])
    for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert second[column].to_numpy() == pytest.approx(first[column].to_numpy(), rel=1e-4, nan_ok=True)


def test_a_run_of_two_processes_is_gone_on_with_by_one_and_by_two(both: Both, challenge: Tiny, tmp_path: Path) -> None:
    """Finished epochs stay as they are, whoever goes on."""
    run = tmp_path / "run"
    both(train_together, challenge.store, run, *JOINT)
    before = pd.read_parquet(run / "metrics.parquet")
    (run / "summary.json").unlink()
    last = sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))[-1]
    assert read_state(last)["finished"]
    again, _ = both(train_together, challenge.store, run, *JOINT)
    assert again["workers"] == 2 and pd.read_parquet(run / "metrics.parquet").equals(before)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("batch_size=2", "`batch_size`: expected at least an image for each of 3 workers, found 2"),
        ("compile=true", "`compile`: a compiled network cannot be divided among 3 workers"),
        ('distillation.teachers=["there"]', "cannot be divided among 3 workers"),
    ],
)
def test_what_cannot_be_divided_is_refused(challenge: Tiny, tmp_path: Path, change: str, told: str) -> None:
    config = load_config("quickstart", None, [*TINY, change])
    with pytest.raises(UserError, match=told):
        prepare_training(config, str(challenge.store), tmp_path / "run", group=part(0, 3))
