"""A dense run that is broken off anywhere and continued ends as an unbroken one, bit for bit."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dense_tasks.runs import DenseFolder
from mtan_core.errors import Interrupted, UserError
from tests.dense_tasks.conftest import tiny, train_tiny
from tests.dense_tasks.roots import arrays, write_frame, write_root
from tests.resuming import Killed, after, same_runs

TWO_PHASES = "phases=[{epochs = 1}, {epochs = 1, lr = 0.003}]"
AUGMENTED = ("augment.mirror=true", "augment.scales=[1.0, 1.2, 1.5]")
RECIPES = {
    "equal": ("ema=0.9", TWO_PHASES, *AUGMENTED),
    "dwa": ("weighting.kind=dwa", "phases=[{epochs = 3}]", "norm=shared", "method=cross-stitch", "evaluate_every=2"),
    "uncertainty": (
        "weighting.kind=uncertainty",
        "method=split-standard",
        "optimizer.kind=sgd",
        "optimizer.warmup=1",
        "ema=0.5",
    ),
    "gradnorm": ("weighting.kind=gradnorm", "method=split-standard", TWO_PHASES),
    "pcgrad": ("weighting.kind=pcgrad", "method=split-standard", *AUGMENTED),
    "random": (
        "weighting.kind=random",
        "precision=bf16",
        "norm=statistics",
        "checkpoint.keep=1",
        "checkpoint.every_epochs=2",
    ),
    "changes": (
        "weighting.kind=fixed",
        "phases=[{epochs = 3}]",
        "changes=[{after = 1, lr = 0.003, weight_decay = 0.1, weights = {depth = 2.0}}]",
    ),
    "dtp": ("weighting.kind=dtp", "method=single", "optimizer.clip=1"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_and_killed_runs_end_as_unbroken_ones(root: Path, tmp_path: Path, name: str) -> None:
    """Broken off after the first step, at the end of the first epoch, and within the next."""
    changes = (*RECIPES[name], "checkpoint.every_steps=2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    steps = train_tiny(root, whole, *changes)["steps"]
    for number, (count, kill) in enumerate([(1, True), (2, False), (1, False)]):
        with pytest.raises((Killed, Interrupted)):
            train_tiny(root, broken, *changes, resume=number > 0, stop=after(count, kill))
    assert 0 < int(DenseFolder(broken).checkpoint().name[5:]) < steps
    train_tiny(root, broken, *changes, resume=True)
    same_runs(broken, whole)


def test_killed_before_the_summary_was_written(root: Path, trained: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(trained, broken)
    (broken / "summary.json").unlink()
    train_tiny(root, broken, "phases=[{epochs = 3}]", resume=True)
    same_runs(broken, trained)


@pytest.mark.parametrize("left", [["config.toml"], ["config.toml", "tasks.json"]])
def test_a_run_that_had_only_begun_starts_anew(root: Path, trained: Path, tmp_path: Path, left: list[str]) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in left:
        shutil.copy(trained / name, broken)
    train_tiny(root, broken, "phases=[{epochs = 3}]", resume=True)
    same_runs(broken, trained)


def test_a_finished_run_is_left_as_it_is(root: Path, trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    summary = train_tiny(root, trained, "phases=[{epochs = 3}]", resume=True)
    assert summary == json.loads((trained / "summary.json").read_text())
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}


def test_another_root_is_refused(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_tiny(root, run, stop=after(2))
    other = write_root(tmp_path / "fewer", train=3, val=3)
    with pytest.raises(UserError, match="--data: expected the frames that the run began with"):
        train_tiny(other, run, resume=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for number in range(count):
            write_frame(tmp_path / "larger", split, number, arrays(rng, 64, 64))
    with pytest.raises(UserError, match="--data: expected the size that the run began with"):
        train_tiny(tmp_path / "larger", run, resume=True)
    train_tiny(root, run, resume=True)


def start(root: Path, run: Path, *changes: str) -> "subprocess.Popen[str]":
    mtan = str(Path(sys.executable).with_name("mtan"))
    words = [mtan, "dense", "train", "--data", str(root), "--run", str(run), "--resume", *tiny(*changes)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_that_is_killed_for_real_ends_as_an_unbroken_one(root: Path, tmp_path: Path) -> None:
    """By SIGKILL while a checkpoint is being written."""
    changes = ("method=split-standard", "checkpoint.every_steps=1", "phases=[{epochs = 5}]", "ema=0.9")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    folder = broken / "checkpoints"
    process = start(root, broken, *changes)
    deadline = time.monotonic() + 60
    while not ((folder / "step-4").exists() and list(folder.glob(".tmp-*"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert not (broken / "summary.json").exists()
    train_tiny(root, broken, *changes, resume=True)
    train_tiny(root, whole, *changes)
    same_runs(broken, whole)
