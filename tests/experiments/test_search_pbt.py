"""Population based training: what it may change, what it finds, and that its schedule does the same again."""

import contextlib
import json
import signal
import subprocess
from pathlib import Path
from random import Random

import pandas as pd
import pytest

from decathlon.config import load_config
from decathlon.training import train
from experiments.search.config import SearchConfig, read_search
from experiments.search.schedules import changes_of, explored, first_point
from mtan_core.errors import UserError
from tests.decathlon.conftest import Tiny, challenge  # noqa: F401 -- a fixture
from tests.experiments.searching import HEAD, command, lines_of, wait_until, written

SPACE = """
[space]
"optimizer.lr" = {log_uniform = [1e-3, 1e-1]}
"optimizer.weight_decay" = {choice = [0.0, 1e-4, 1e-3]}
"weighting.weights.svhn" = {uniform = [0.5, 2.0]}
"""
PBT = 'scheduler = {kind = "pbt", interval = 2, quantile = 0.5}\n'
FIXED = HEAD.replace('"phases=[{epochs = 2}]"', '"phases=[{epochs = 6}]", "weighting.kind=fixed"')


def test_the_schedule_found_ends_where_the_search_did(challenge: Tiny, tmp_path: Path) -> None:  # noqa: F811
    """Killed in the middle and gone on with, as well: the best trial's ancestry, trained again, gives the same metric."""
    out, text = tmp_path / "out", FIXED + 'trials = 2\nmetric = "val_loss.svhn"\nmode = "min"\n' + PBT + SPACE
    words = command("search", written(tmp_path, text), "--data", challenge.store, "--out", out)
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(words, stdout=log, stderr=log)
        wait_until(lambda: driver.poll() is not None or any(len(each) >= 3 for each in lines_of(out)), 240)
        its_own = descendants(driver.pid)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert its_own, (tmp_path / "log").read_text()
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in its_own), 90)
    done = subprocess.run(
        command("resume", out, "--json"), capture_output=True, text=True, timeout=400, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    best, lineage = json.loads(done.stdout)["best"], json.loads((out / "lineage.json").read_text())
    assert best["replay_metric"] == best["metric"] == lineage["best"]["replay_metric"]
    assert [each["epoch"] for each in lineage["exchanges"]] == [2, 4]
    table = pd.read_parquet(out / "trials.parquet")
    assert table.groupby("trial")["epoch"].apply(list).tolist() == [[1, 2, 3, 4, 5, 6]] * 2
    for each in lineage["exchanges"]:
        scores = table[table["epoch"] == each["epoch"]].set_index("trial")["metric"]
        assert scores[each["trial"]] == scores.max() and scores[each["source"]] == scores.min()
        row = table[(table["trial"] == each["trial"]) & (table["epoch"] == each["epoch"] + 1)].iloc[0]
        assert {key: row[f"config.{key}"] for key in each["after"]} == each["after"]
    config = load_config(None, out / "best_schedule.toml")
    assert [change.after for change in config.changes] == [each["epoch"] for each in lineage["best"]["ancestry"]]
    train(config, str(challenge.store), tmp_path / "again")
    rows = pd.read_parquet(tmp_path / "again" / "metrics.parquet").query("domain == 'svhn'")
    assert rows["val_loss"].iloc[-1] == best["metric"]


def descendants(parent: int) -> set[int]:
    """The processes that a process started, and those that they started."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found = {parent}
    while more := {process for process, above in parents.items() if above in found} - found:
        found |= more
    return found - {parent}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            PBT + '[space]\n"network.width" = {choice = [1, 2]}',
            "`space.network.width`: population based training changes",
        ),
        (PBT + 'sampler = "tpe"' + SPACE, 'begins with "random" or "grid"'),
        (PBT + "trials = 1" + SPACE, "at least 2"),
        (PBT.replace("interval = 2", "interval = 6") + SPACE, "`scheduler.interval`: expected less than the 6 epochs"),
        (PBT.replace("0.5", "0.6") + SPACE, "scheduler.quantile"),
        (PBT.replace("interval = 2", "interval = 3") + SPACE, None),
    ],
)
def test_what_cannot_be_changed_in_training_is_refused(tmp_path: Path, text: str, told: str | None) -> None:
    config = written(tmp_path, FIXED + text)
    if told is None:
        assert read_search(config).scheduler.interval == 3
        return
    with pytest.raises(UserError) as problem:
        read_search(config)
    assert told in str(problem.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("weighting.kind=equal", 'needs weighting.kind = "fixed"'),
        ("evaluate_every=4", "a multiple of `evaluate_every` = 4"),
        ("phases=[{epochs = 6, lr = 0.1}]", "a phase without a rate of its own"),
    ],
)
def test_a_training_that_cannot_be_changed_is_refused(tmp_path: Path, change: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_search(
            written(
                tmp_path, FIXED.replace('"weighting.kind=fixed"', f'"weighting.kind=fixed", "{change}"') + PBT + SPACE
            )
        )


def test_explored_values_stay_in_their_ranges(tmp_path: Path) -> None:
    search = read_search(written(tmp_path, FIXED + PBT + SPACE))
    point, random, seen = (
        {"optimizer.lr": 0.1, "optimizer.weight_decay": 0.0, "weighting.weights.svhn": 0.5},
        Random(0),
        [],
    )
    for _ in range(200):
        point = explored(search, point, random)
        seen.append(point)
    rates, weights = [each["optimizer.lr"] for each in seen], [each["weighting.weights.svhn"] for each in seen]
    assert 1e-3 <= min(rates) < 0.01 and 0.05 < max(rates) <= 0.1
    assert {each["optimizer.weight_decay"] for each in seen} == {0.0, 1e-4, 1e-3}
    assert 0.5 <= min(weights) < 0.6 and max(weights) <= 2.0
    still = SearchConfig(
        space=search.space, scheduler=search.scheduler.model_copy(update={"resample": 0.0, "factors": (1.25,)})
    )
    assert explored(still, {"optimizer.lr": 0.01}, Random(1)) == {"optimizer.lr": 0.0125}


def test_an_ancestry_becomes_changes() -> None:
    first = {"optimizer.lr": 0.1, "weighting.weights.svhn": 1.0}
    second = {"optimizer.lr": 0.1, "weighting.weights.svhn": 2.0}
    third = {"optimizer.lr": 0.05, "weighting.weights.svhn": 2.0}
    lineage = [
        {"epoch": 2, "source": 0, "trial": 1, "before": first, "after": second},
        {"epoch": 4, "source": 1, "trial": 2, "before": second, "after": third},
    ]
    assert changes_of(lineage) == [{"after": 2, "weights": {"svhn": 2.0}}, {"after": 4, "lr": 0.05}]  # type: ignore[arg-type]
    assert first_point(third, lineage) == first  # type: ignore[arg-type]
    assert first_point(first, []) == first
