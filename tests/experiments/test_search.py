"""Searches for real: Ray on this machine, trials of seconds on the tiny challenge."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from decathlon.config import load_config
from decathlon.training import train
from experiments.search.config import Dimension, SearchConfig, read_search
from experiments.search.metric import References, measures, value_of
from experiments.search.space import drawn, grid
from mtan_core.errors import UserError
from tests.conftest import Mtan, document
from tests.decathlon.conftest import TINY, Tiny, challenge  # noqa: F401 -- a fixture

HEAD = f'preset = "quickstart"\nset = {json.dumps(TINY)}\n'
LR = '[space]\n"optimizer.lr" = {log_uniform = [1e-3, 1e-1]}\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "search-config.toml"
    path.write_text(text)
    return path


def started_by_ray() -> set[str]:
    """Command lines of Ray's processes on this machine, those of others as well."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(name in line for name in ("raylet", "gcs_server", "ray::")):
            found.add(f"{process.name} {line[:60]}")
    return found


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from experiments.cli import main; main()", "experiments", *map(str, words)]


def run(*words: object, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own, which leaves none of Ray's behind."""
    before = started_by_ray()
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=timeout, check=False)
    wait_until(lambda: not started_by_ray() - before, 15)
    return done


def wait_until(holds: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_the_best_configuration_trains_to_the_same_metric(challenge: Tiny, tmp_path: Path) -> None:  # noqa: F811
    config = written(tmp_path, HEAD + 'trials = 2\nscheduler = {kind = "asha"}\nsampler = "tpe"\n' + LR)
    out = tmp_path / "out"
    done = run("search", config, "--data", challenge.store, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)["best"]
    summary = train(load_config(None, out / "best.toml"), str(challenge.store), tmp_path / "again")
    assert summary["mean_val_accuracy"] == best["metric"]
    table = pd.read_parquet(out / "trials.parquet")
    assert set(table["trial"]) == {0, 1} and set(table["status"]) <= {"finished", "stopped"}
    assert table.groupby("trial")["config.optimizer.lr"].nunique().tolist() == [1, 1]
    again = run("search", config, "--data", challenge.store, "--out", out)
    assert again.returncode == 2 and "found" in again.stderr and "resume" in again.stderr


def test_a_killed_search_is_finished_without_running_finished_trials_again(challenge: Tiny, tmp_path: Path) -> None:  # noqa: F811
    text = HEAD.replace("{epochs = 2}", "{epochs = 12}") + "trials = 3\nconcurrency = 1\n" + LR
    out, before = tmp_path / "out", started_by_ray()
    words = command("search", written(tmp_path, text), "--data", challenge.store, "--out", out)
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(words, stdout=log, stderr=log)
        wait_until(lambda: driver.poll() is not None or sum(len(each) >= 2 for each in lines_of(out)) == 2, 150)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    wait_until(lambda: not started_by_ray() - before, 90)  # Ray's own processes notice by themselves
    first, second = sorted(lines_of(out), key=len, reverse=True)
    assert len(first) == 12 and 2 <= len(second) < 12, (tmp_path / "log").read_text()
    done = run("resume", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"] == 3
    table = pd.read_parquet(out / "trials.parquet")
    assert table.groupby("trial")["epoch"].apply(list).tolist() == [list(range(1, 13))] * 3
    assert first in lines_of(out)  # not a line was added to what was finished, none was changed
    again = next(lines for lines in lines_of(out) if lines[0]["pid"] == second[0]["pid"])
    assert again[: len(second)] == second  # what was killed went on where it was, in another process
    assert {line["pid"] for line in again} > {line["pid"] for line in second} and len(again) <= 13


def lines_of(out: Path) -> list[list[dict[str, Any]]]:
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in out.glob("ray/*/result.json")]


def test_a_failing_trial_is_marked_and_the_others_go_on(challenge: Tiny, tmp_path: Path) -> None:  # noqa: F811
    space = '[space]\n"optimizer.lr" = {choice = [1e30, 0.05]}\n'
    config = written(tmp_path, HEAD + 'sampler = "grid"\nretries = 0\n' + space)
    done = run("search", config, "--data", challenge.store, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "out" / "trials.parquet").drop_duplicates("trial").set_index("trial")
    assert table["status"].tolist() == ["failed", "finished"]
    assert "finite loss" in table["error"][0] and pd.isna(table["error"][1])


def test_a_search_whose_every_trial_fails(challenge: Tiny, tmp_path: Path) -> None:  # noqa: F811
    config = written(tmp_path, HEAD + 'sampler = "grid"\n[space]\n"optimizer.lr" = {choice = [1e30]}\n')
    done = run("search", config, "--data", challenge.store, "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stdout == ""
    assert "1 of 1 failed" in done.stderr and "finite loss" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[space]\n"optimizer.lrr" = {uniform = [0.1, 0.2]}', "did you mean 'optimizer.lr'?"),
        ('[space]\n"optimizer.lr" = {uniform = [-1.0, 0.2]}', "greater than 0"),
        ('[space]\n"optimizer.lr" = {uniform = [0.2, 0.1]}', "lower end first"),
        ('[space]\n"optimizer.lr" = {}', "expected one of"),
        ("[space]", "at least one key"),
        ("trials = 3", "space"),
        ("trails = 3\n" + LR, "did you mean 'trials'?"),
        ('sampler = "grid"\n' + LR, "needs choice"),
        ('metric = "acuracy"\n' + LR, "MEASURE.TASK"),
        ('[space]\n"ema" = {choice = [0.5], when = {"norm" = ["domain"]}}', "declared before"),
    ],
)
def test_a_configuration_that_cannot_be_searched(mtan: Mtan, tmp_path: Path, text: str, told: str) -> None:
    config = written(tmp_path, HEAD + text)
    outcome = mtan("experiments", "search", config, "--data", tmp_path, "--out", tmp_path / "out", "--dry-run")
    assert outcome.code == 2 and told in outcome.err and outcome.out == ""
    assert outcome.err.count("\n") == 1


def test_what_cannot_be_reached(challenge: Tiny, mtan: Mtan, tmp_path: Path) -> None:  # noqa: F811
    config = written(tmp_path, HEAD + "[resources]\ncpus = 1000\n" + LR)
    out = tmp_path / "out"
    words = ["experiments", "search", config, "--out", out, "--data"]
    (tmp_path / "file").write_text("")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert mtan(*words, tmp_path / "nothing").code == 2
    silent = mtan(*words, challenge.store, "--address", f"127.0.0.1:{port}")
    assert silent.code == 2 and "nobody answers" in silent.err
    unwritable = mtan(*words, challenge.store, "--storage", tmp_path / "file")
    assert unwritable.code == 2 and "a place to write" in unwritable.err
    greedy = run(*words[1:], challenge.store)
    assert greedy.returncode == 2 and "at most what a machine has" in greedy.stderr
    assert not out.exists()
    assert mtan("experiments", "resume", tmp_path).code == 2


def test_a_dry_run_prints_the_trials_and_starts_nothing(mtan: Mtan, tmp_path: Path) -> None:
    config = written(tmp_path, HEAD + "trials = 3\n" + LR)
    words = ("experiments", "search", config, "--data", tmp_path, "--out", tmp_path / "out", "--dry-run", "--json")
    assert document(mtan(*words)) == {"trials": 3, "points": drawn(read_search(config))}
    assert not (tmp_path / "out").exists()


def test_the_documented_configuration_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "search.md"
    block = page.read_text().split("```toml\n")[1].split("```")[0]
    assert len(drawn(read_search(written(tmp_path, block)))) == 20


def test_a_key_is_there_only_where_its_condition_holds() -> None:
    space = {
        "weighting.kind": Dimension(choice=("equal", "dwa")),
        "weighting.temperature": Dimension(quantised=(1.0, 3.0, 1.0), when={"weighting.kind": ("dwa",)}),
    }
    search = SearchConfig(space=space, trials=40, seed=1)
    full = grid(search)
    assert len(full) == 4 and full[0] == {"weighting.kind": "equal"}
    assert {frozenset(point.items()) for point in drawn(search)} == {frozenset(point.items()) for point in full}
    assert drawn(search) != drawn(search.model_copy(update={"seed": 2}))


def test_the_metric_of_an_epoch() -> None:
    rows = [
        {"epoch": 1, "domain": name, "loss": 0.1, "val_accuracy": value}
        for name, value in (("dtd", 0.5), ("svhn", 1.0))
    ]
    found = measures(rows)
    assert value_of("mean_accuracy", found, References()) == 0.75
    assert value_of("val_accuracy.svhn", found, References()) == 1.0
    assert value_of("decathlon_score", found, References({"dtd": 0.5, "svhn": 0.1})) == pytest.approx(250 + 1000)
    assert value_of("mean_accuracy", measures([{**rows[0], "val_accuracy": None}]), References()) is None
    with pytest.raises(UserError, match=r"did you mean 'val_accuracy\.dtd'"):
        value_of("val_acuracy.dtd", found, References())
