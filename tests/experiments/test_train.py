"""Data-parallel runs by Ray, for real: workers are killed and runs are stopped in the middle."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import fs

from decathlon.config import load_config
from decathlon.training import train
from experiments.cluster.storage import open_storage
from experiments.cluster.watchdog import members
from experiments.train.copies import copies_in
from tests.conftest import Mtan, document
from tests.decathlon.conftest import TINY, Tiny
from tests.experiments.searching import Place, command, wait_until

EPOCHS = 20
CHANGES = [word for change in (*TINY, f"phases=[{{epochs = {EPOCHS}}}]", "batch_size=9") for word in ("--set", change)]


def words(store: Path, run: Path, *more: object) -> list[str]:
    return command("train", "--data", store, "--run", run, "--preset", "quickstart", *CHANGES, "--workers", 2, *more)


def name_of(process: int) -> bytes:
    """What Ray calls a worker's process: after what it does."""
    return Path(f"/proc/{process}/cmdline").read_bytes()


def epochs_of(run: Path) -> int:
    try:
        return int(pd.read_parquet(run / "metrics.parquet")["epoch"].max())
    except (OSError, ValueError):
        return 0


def test_a_run_outlives_a_killed_worker_and_is_stopped_and_resumed(
    challenge: Tiny,
    tmp_path: Path,
    place: Place,
) -> None:
    run = tmp_path / "run"
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(words(challenge.store, run), stdout=log, stderr=log, env=place.environment())
        wait_until(lambda: driver.poll() is not None or epochs_of(run) >= 2, 150)
        training = [process for process in members(str(place.folder)) if b"RayTrainWorker" in name_of(process)]
        assert len(training) == 2, (tmp_path / "log").read_text()
        os.kill(training[-1], signal.SIGKILL)
        reached = epochs_of(run)
        wait_until(lambda: driver.poll() is not None or epochs_of(run) >= reached + 2, 150)
        driver.send_signal(signal.SIGINT)
        driver.wait(60)
    told = (tmp_path / "log").read_text()
    assert driver.returncode == 130 and "stopped" in told and "--resume" in told, told
    wait_until(lambda: not place.left(), 30)
    half = pd.read_parquet(run / "metrics.parquet")
    done = subprocess.run(
        words(challenge.store, run, "--resume", "--json"),
        capture_output=True, text=True, timeout=300, check=False, env=place.environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary, metrics = json.loads(done.stdout), pd.read_parquet(run / "metrics.parquet")
    assert summary["workers"] == 2 and summary["epochs"] == EPOCHS
    for _, rows in metrics.groupby("domain"):  # no epoch is lost, and none is there twice
        assert rows["epoch"].tolist() == list(range(1, EPOCHS + 1))
    pd.testing.assert_frame_equal(metrics[: len(half)], half)
    alone = train(load_config("quickstart", None, [*CHANGES[1::2]]), str(challenge.store), tmp_path / "alone")
    assert (alone["steps"], alone["images"]) == (summary["steps"], summary["images"])
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in (tmp_path / "alone").iterdir())
    wait_until(lambda: not place.left(), 30)


def test_a_run_goes_on_from_an_object_store(challenge: Tiny, mtan: Mtan, tmp_path: Path, place: Place, s3: str) -> None:
    """Its command and all workers die, and its folder is lost; what was copied goes on, to the end of an unbroken run."""
    run, where = tmp_path / "run", "s3://bucket/runs/one?allow_bucket_creation=true"
    whole = ("--storage", where)
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(words(challenge.store, run, *whole), stdout=log, stderr=log, env=place.environment())
        wait_until(lambda: driver.poll() is not None or copied(where), 150)
        driver.kill()
        driver.wait(60)
    assert copied(where), (tmp_path / "log").read_text()
    wait_until(lambda: not place.left(), 30)
    assert not (run / "config.toml").exists()
    shutil.rmtree(run)
    other = mtan("experiments", *words(challenge.store, run, *whole)[4:])
    assert other.code == 2 and "--storage: expected a place without a run" in other.err and not run.exists()
    resume = command("train", "--data", challenge.store, "--run", run, "--workers", 2, *whole, "--resume", "--json")
    done = subprocess.run(resume, capture_output=True, text=True, timeout=300, check=False, env=place.environment())
    assert done.returncode == 0, done.stderr
    metrics = pd.read_parquet(run / "metrics.parquet")
    for _, rows in metrics.groupby("domain"):
        assert rows["epoch"].tolist() == list(range(1, EPOCHS + 1))
    summary = json.loads(done.stdout)
    assert summary == json.loads((run / "summary.json").read_text()) and summary["workers"] == 2
    storage = open_storage(where)
    left = storage.filesystem.get_file_info(fs.FileSelector(storage.path))
    assert [info.base_name for info in left] == ["run"]  # also of the command that was killed
    wait_until(lambda: not place.left(), 30)


def copied(where: str) -> bool:
    try:
        return copies_in(where).exists()
    except OSError:  # there is no bucket yet
        return False


def test_a_worker_s_mistake_is_one_sentence_and_not_tried_again(
    challenge: Tiny,
    tmp_path: Path,
    place: Place,
) -> None:
    changes = ["--set", "optimizer.lr=1e30", "--set", "optimizer.clip=0"]
    done = subprocess.run(
        words(challenge.store, tmp_path / "run", *changes),
        capture_output=True, text=True, timeout=200, check=False, env=place.environment(),
    )  # fmt: skip
    assert done.returncode == 2 and "finite loss" in done.stderr and "Traceback" not in done.stderr, done.stderr
    wait_until(lambda: not place.left(), 30)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--workers", 3, "--set", "batch_size=2"], "at least an image for each of 3 workers, found 2"),
        (["--task", "dnese"], "expected decathlon or dense"),
        (["--min-workers", 3], "--min-workers: expected at most --workers"),
        (["--set", "optimiser.lr=1"], "did you mean 'optimizer.lr'"),
        (["--domains", "svnh"], "did you mean 'svhn'"),
        (["--protocol", "val"], "`protocol`: "),
        (["--pool-from", "nowhere"], "nowhere"),
        (["--cpus", 1000], "at most what a machine has"),
        (["--workers", 500, "--set", "batch_size=500"], "each of 500 workers, found 27"),
        (["--address", "127.0.0.1:1"], "nobody answers"),
    ],
)
def test_what_cannot_be_trained_together(
    challenge: Tiny,
    mtan: Mtan,
    tmp_path: Path,
    more: list[Any],
    told: str,
) -> None:
    run = tmp_path / "run"
    base = ["experiments", "train", "--data", challenge.store, "--run", run, "--preset", "quickstart", *CHANGES]
    outcome = mtan(*base, "--workers", 2, *more)
    assert outcome.code == 2 and told in outcome.err and outcome.out == "" and not run.exists()


def test_an_existing_run_is_not_overwritten(challenge: Tiny, mtan: Mtan, tmp_path: Path) -> None:
    run = tmp_path / "run"
    document(mtan("decathlon", "train", "--data", challenge.store, "--run", run, "--preset", "quickstart", *CHANGES[:-4],
                  "--set", "phases=[{epochs = 1}]", "--json"))  # fmt: skip
    outcome = mtan("experiments", "train", "--data", challenge.store, "--run", run, "--preset", "quickstart")
    assert outcome.code == 2 and "expected a new folder" in outcome.err
