"""Searches for real: Ray on this machine, trials of seconds on tiny data."""

import json
from pathlib import Path

import pandas as pd

from decathlon.config import load_config
from decathlon.training import train
from tests.conftest import Mtan
from tests.decathlon.conftest import Tiny
from tests.dense_tasks.conftest import TINY as DENSE
from tests.dense_tasks.conftest import root  # noqa: F401 -- a fixture
from tests.experiments.searching import HEAD, LR, Place, written


def test_the_best_configuration_trains_to_the_same_metric(
    challenge: Tiny, place: Place, mtan: Mtan, tmp_path: Path
) -> None:
    config = written(tmp_path, HEAD + 'trials = 2\nscheduler = {kind = "asha"}\nsampler = "tpe"\n' + LR)
    out = tmp_path / "out"
    done = place.command("search", config, "--data", challenge.store, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    best, base = found["best"], found["base"]
    summary = train(load_config(None, out / "best.toml"), str(challenge.store), tmp_path / "again")
    assert summary["mean_val_accuracy"] == best["metric"]
    table = pd.read_parquet(out / "trials.parquet")
    assert set(table["trial"]) == {0, 1} and set(table["status"]) <= {"finished", "stopped"}
    rates = table.groupby("trial")["config.optimizer.lr"].unique()
    assert [len(each) for each in rates] == [1, 1] and rates[0][0] == load_config(
        "quickstart", None
    ).optimizer.lr != rates[1][0]
    first = table[table["trial"] == 0].iloc[-1]
    assert base == {"trial": 0, "status": first["status"], "metric": first["metric"]}
    again = mtan("experiments", "search", config, "--data", challenge.store, "--out", out)
    assert again.code == 2 and "found" in again.err and "resume" in again.err
    beside = ["--data", challenge.store, "--out", tmp_path / "beside", "--storage", out]
    taken = mtan("experiments", "search", config, *beside)
    assert taken.code == 2 and "a place without a search" in taken.err and not (tmp_path / "beside").exists()


def test_trials_that_fail_and_trials_that_take_too_long(challenge: Tiny, place: Place, tmp_path: Path) -> None:
    """Of four trials, two fail at once, and two meet the limit of time after an epoch, which for one is the last."""
    space = '[space]\n"optimizer.lr" = {choice = [1e30, 0.05]}\nphases = {choice = [[{epochs = 1}], [{epochs = 3}]]}\n'
    config = written(tmp_path, HEAD + 'sampler = "grid"\nretries = 1\nseconds = 0.001\n' + space)
    out = tmp_path / "out"
    done = place.command("search", config, "--data", challenge.store, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(out / "trials.parquet").set_index("trial")
    assert rows["status"].to_dict() == {0: "failed", 1: "failed", 2: "finished", 3: "stopped"}
    assert rows["epoch"].fillna(0).to_dict() == {0: 0, 1: 0, 2: 1, 3: 1}
    assert rows["error"].str.contains("finite loss").fillna(False).to_list() == [True, True, False, False]
    for number, path in enumerate(sorted((out / "ray").glob("0*"))):
        assert not (number < 2) or "Failure # 2" in (path / "error.txt").read_text()
        assert (number < 2) or not (path / "error.txt").exists()


def test_a_search_whose_every_trial_fails(challenge: Tiny, place: Place, tmp_path: Path) -> None:
    config = written(tmp_path, HEAD + 'sampler = "grid"\nretries = 0\n[space]\n"optimizer.lr" = {choice = [1e30]}\n')
    done = place.command("search", config, "--data", challenge.store, "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stdout == ""
    assert "1 of 1 failed" in done.stderr and "finite loss" in done.stderr and "Traceback" not in done.stderr


def test_dense_trials_of_which_one_is_worse_than_the_median(root: Path, place: Place, tmp_path: Path) -> None:  # noqa: F811
    head = (
        f'task = "dense"\nset = {json.dumps([*DENSE, "phases=[{epochs = 4}]"])}\nmetric = "loss.depth"\nmode = "min"\n'
    )
    order = 'sampler = "grid"\nscheduler = {kind = "median", grace = 2}\nconcurrency = 1\n'
    config = written(tmp_path, head + order + '[space]\n"optimizer.lr" = {choice = [0.01, 0.011, 0.012, 1e-9]}\n')
    out = tmp_path / "out"
    done = place.command("search", config, "--data", root, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(out / "trials.parquet")
    assert table.groupby("trial")["status"].first().tolist() == ["finished"] * 3 + ["stopped"]
    assert table.groupby("trial")["epoch"].max().tolist() == [4, 4, 4, 2]
    kept = [len(list(path.glob("checkpoint_*"))) for path in sorted((out / "ray").glob("0*"))]
    assert kept == [2, 2, 2, 2]  # older ones are gone
