"""A run that is broken off anywhere and continued ends as an unbroken one, bit for bit."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from decathlon.data.prepare import prepare
from decathlon.resuming import refuse_other_divisions
from decathlon.runs import RunFolder
from mtan_core.checkpoint import read_state
from mtan_core.errors import Interrupted, UserError
from mtan_core.runs import amend
from tests.conftest import Mtan
from tests.decathlon.conftest import SHARED_NORM, TRAINED, Tiny, tiny, train_tiny
from tests.resuming import Killed, after, same_runs

TWO_PHASES = 'phases=[{epochs = 2}, {epochs = 1, lr = 0.01, domains = ["dtd", "svhn"], freeze = ["pool"]}]'
CHANGED = "changes=[{after = 1, lr = 0.03, weight_decay = 0.01, weights = {svhn = 2.0}}]"
RECIPES = {
    "joint": ("weighting.kind=dwa", "ema=0.9", TWO_PHASES),
    "proportional": ("sampling=proportional", "norm=shared", "weighting.kind=uncertainty", "optimizer.kind=adamw",
                     "optimizer.lr=0.003", "ema=0", "steps_per_epoch=5"),
    "sequential": ("sampling=sequential", "norm=shared", "ema=0.9", "mixup=0.4", TWO_PHASES),
    "temperature": ("sampling=temperature", "norm=statistics", "weighting.kind=dwa", "optimizer.kind=adamw",
                    "ema=0.9", "steps_per_epoch=4", "optimizer.warmup=1"),
    "train+val": ("protocol=train+val", "accumulate=2", "weighting.kind=uncertainty", "checkpoint.every_epochs=2",
                  "checkpoint.keep=1", "phases=[{epochs = 3}]"),
    "changes": ("weighting.kind=fixed", "weighting.weights.dtd=0.5", CHANGED),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_and_killed_runs_end_as_unbroken_ones(challenge: Tiny, tmp_path: Path, name: str) -> None:
    """Broken off after its first step, within epochs, at their ends and where phases meet."""
    changes = (*RECIPES[name], "checkpoint.every_steps=3")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    steps = train_tiny(challenge.store, whole, *changes)["steps"]
    breaks = [(1, True), (2, False), (3, True), (1, False), (2, True)]
    survived = 0
    for number, (count, kill) in enumerate(breaks):
        with pytest.raises((Killed, Interrupted)):
            train_tiny(challenge.store, broken, *changes, resume=number > 0, stop=after(count, kill))
        found = RunFolder(broken).checkpoints
        survived = max([survived, *(int(path.name[5:]) for path in found.glob("step-*"))])
    assert 0 < survived < steps
    train_tiny(challenge.store, broken, *changes, resume=True)
    same_runs(broken, whole)


def test_a_run_that_goes_on_with_other_changes_ends_as_if_they_had_been_planned(
    challenge: Tiny,
    tmp_path: Path,
) -> None:
    """As population based training needs it: a copy of another run's folder goes on under another configuration."""
    recipe = ("weighting.kind=fixed", "phases=[{epochs = 3}]", "optimizer.schedule=cosine")
    planned, begun, copied = tmp_path / "planned", tmp_path / "begun", tmp_path / "copied"
    train_tiny(challenge.store, planned, *recipe, CHANGED)
    with pytest.raises(Killed):
        train_tiny(challenge.store, begun, *recipe, stop=after(steps_of_epoch(planned) + 1, kill=True))
    shutil.copytree(begun, copied)
    config = RunFolder(planned).config()
    with pytest.raises(UserError, match="changes"):
        train_tiny(challenge.store, copied, *recipe, CHANGED, resume=True)
    amend(RunFolder(copied), config)
    train_tiny(challenge.store, copied, *recipe, CHANGED, resume=True)
    same_runs(copied, planned)
    rows = pd.read_parquet(copied / "metrics.parquet").drop_duplicates("epoch")
    weights = pd.read_parquet(copied / "metrics.parquet").query("domain == 'svhn'")["weight"]
    assert weights.tolist() == [1.0, 2.0, 2.0] and rows["lr"].iloc[1] < 0.03 < rows["lr"].iloc[0]
    with pytest.raises(UserError, match="changes"):  # what has taken effect cannot be changed any more
        amend(RunFolder(copied), config.model_copy(update={"changes": ()}))
    with pytest.raises(UserError, match="batch_size"):
        amend(RunFolder(begun), config.model_copy(update={"batch_size": 4}))


def steps_of_epoch(run: Path) -> int:
    return int(pd.read_parquet(run / "metrics.parquet")["step"].min())


def test_stopped_after_the_last_step_of_an_epoch(challenge: Tiny, tmp_path: Path) -> None:
    """The epoch's validation is still to come; so is the second phase's optimiser, where it was the last one of the first."""
    changes = (TWO_PHASES.replace("epochs = 2", "epochs = 1"), "ema=0.5", "optimizer.kind=adamw")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train_tiny(challenge.store, whole, *changes)["steps"] == 8
    for resume in (False, True):
        with pytest.raises(Interrupted) as stopped:
            train_tiny(challenge.store, broken, *changes, resume=resume, stop=after(4, kill=False))
        assert stopped.value.args[0].name == ("step-8" if resume else "step-4")
    train_tiny(challenge.store, broken, *changes, resume=True)
    same_runs(broken, whole)


@pytest.mark.parametrize("kind", ["domain", "shared"])
def test_killed_before_the_summary_was_written(
    challenge: Tiny, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    whole = request.getfixturevalue("trained" if kind == "domain" else "shared_norm")
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    (broken / "summary.json").unlink()
    changes = TRAINED if kind == "domain" else SHARED_NORM
    train_tiny(challenge.store, broken, *changes, resume=True)
    same_runs(broken, whole)


def command(*words: object) -> list[str]:
    return [str(Path(sys.executable).with_name("mtan")), "decathlon", *map(str, words)]


def start(store: Path, run: Path, *changes: str) -> "subprocess.Popen[str]":
    words = command("train", "--data", store, "--run", run, "--resume", *tiny(*changes))
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: "subprocess.Popen[str]", happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def test_a_run_that_is_killed_for_real_ends_as_an_unbroken_one(challenge: Tiny, tmp_path: Path) -> None:
    """By SIGKILL before its first checkpoint, and while a later one is being written."""
    changes = ("checkpoint.every_steps=2", "phases=[{epochs = 5}]", "ema=0.9")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    folder = broken / "checkpoints"
    for happened in (
        lambda: (broken / "domains.json").exists(),
        lambda: (folder / "step-6").exists() and list(folder.glob(".tmp-*")),
    ):
        process = start(challenge.store, broken, *changes)
        wait_for(process, happened)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert not (broken / "summary.json").exists()
    process = start(challenge.store, broken, *changes)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    train_tiny(challenge.store, whole, *changes)
    same_runs(broken, whole)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(challenge: Tiny, tmp_path: Path) -> None:
    changes = ("phases=[{epochs = 400}]",)
    run = tmp_path / "run"
    process = start(challenge.store, run, *changes)
    wait_for(process, (run / "metrics.parquet").exists)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told and out == ""
    checkpoint = RunFolder(run).checkpoint()
    assert f"{checkpoint} is written" in told and "--resume" in told
    assert read_state(checkpoint)["position"]["steps"] == int(checkpoint.name[5:]) > 0


def test_a_differing_key_is_refused_and_named(mtan: Mtan, challenge: Tiny, trained: Path) -> None:
    words = ("decathlon", "train", "--data", challenge.store, "--run", trained, "--resume")
    outcome = mtan(*words, "--set", "optimizer.lr=0.5", "--set", "threads=1")
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert "`optimizer.lr`" in outcome.err and "0.5" in outcome.err


def test_a_finished_run_resumes_to_its_summary_at_once(mtan: Mtan, trained: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("*")}
    outcome = mtan("decathlon", "train", "--data", "no-store-needed", "--run", trained, "--resume", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == json.loads((trained / "summary.json").read_text())
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("*")} == before


def test_a_run_without_a_checkpoint_starts_anew(challenge: Tiny, tmp_path: Path, trained: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.toml", "domains.json"):
        shutil.copy(trained / name, run)
    train_tiny(challenge.store, run, *TRAINED, resume=True)
    same_runs(run, trained)


def test_only_a_run_is_resumed(challenge: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "folder"
    run.mkdir()
    (run / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="--run"):
        train_tiny(challenge.store, run, resume=True)
    assert [child.name for child in run.iterdir()] == ["letter.txt"]


def test_other_data_are_refused(challenge: Tiny, tmp_path: Path) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    with pytest.raises(Interrupted):
        train_tiny(challenge.store, run, stop=after(2, kill=False))
    shutil.copytree(challenge.store, store)
    marker = json.loads((store / "store.json").read_text())
    marker["domains"].pop("svhn")
    (store / "store.json").write_text(json.dumps(marker))
    before = (run / "domains.json").read_text()
    with pytest.raises(UserError, match=r"--data.*svhn"):
        train_tiny(store, run, resume=True)
    assert (run / "domains.json").read_text() == before


def test_events_of_epochs_that_are_done_again_are_shown_once(challenge: Tiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = ("protocol=train+val", "phases=[{epochs = 3}]", "checkpoint.every_epochs=3")
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train_tiny(challenge.store, run, *changes, stop=after(14, kill=True))
    train_tiny(challenge.store, run, *changes, resume=True)
    assert len(list((run / "tensorboard").iterdir())) == 2
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    metrics = pd.read_parquet(run / "metrics.parquet")
    rows = metrics[metrics["domain"] == "svhn"]
    assert [event.step for event in events.Scalars("loss/svhn")] == rows["step"].tolist()
    assert [event.value for event in events.Scalars("loss/svhn")] == pytest.approx(rows["loss"].tolist())


def test_another_division_of_the_same_images_is_refused(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path
) -> None:
    """Else images of val would have been trained on, and nobody would know."""
    assert not prepare(challenge.root, tmp_path / "store", resplit=1).problems
    outcome = mtan("decathlon", "evaluate", trained, "--data", tmp_path / "store")
    assert outcome.code == 2
    assert "another division" in outcome.err
    run = tmp_path / "run"
    train_tiny(challenge.store, run, *TRAINED)
    (run / "summary.json").unlink()
    outcome = mtan("decathlon", "train", "--data", tmp_path / "store", "--run", run, "--resume")
    assert outcome.code == 2
    assert "as the run began with it" in outcome.err  # its measured statistics tell already; official ones would not
    began = RunFolder(trained).divisions()
    with pytest.raises(UserError, match="svhn divided as the run began"):
        refuse_other_divisions(began, {**began, "svhn": {"train": "another", "val": "division"}})
