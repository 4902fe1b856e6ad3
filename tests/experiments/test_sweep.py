"""Tables of trainings: what their rows are, and sweeps for real, with Ray on this machine."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from decathlon.config import load_config
from decathlon.training import train
from experiments.cluster.mirror import Mirror
from experiments.cluster.stopping import interruptible
from experiments.sweep.config import cells, configuration, read_table, rows_of, shipped, sources
from mtan_core.errors import UserError
from mtan_core.methods import methods
from tests.conftest import Mtan, document
from tests.decathlon.conftest import TINY, Tiny, challenge  # noqa: F401 -- a fixture
from tests.dense_tasks.roots import write_root
from tests.experiments.searching import command, wait_until

HEAD = f'preset = "quickstart"\nset = {json.dumps([change for change in TINY if not change.startswith("seed")])}\n'
TABLE = """seeds = [0, 4]
[dimensions]
method = ["mtan", "feature", "scratch"]
"weighting.kind" = ["equal", "dwa"]
[[exclude]]
method = ["feature", "scratch"]
"weighting.kind" = "dwa"
[[where]]
when = {method = "feature"}
set = ["optimizer.lr=0.01"]
pool_from = "pool"
[[rows]]
name = "pool"
hidden = true
set = ["method=hard-sharing", "domains=svhn"]
"""
KILLED = """seeds = [3]
concurrency = 1
retries = 0
[[rows]]
name = "pool"
hidden = true
set = ["method=hard-sharing", "domains=svhn"]
[[rows]]
name = "feature"
pool_from = "pool"
set = ["method=feature", "phases=[{epochs = 12}]"]
[[rows]]
name = "diverging"
set = ["optimizer.lr=1e30"]
[[rows]]
name = "upon the diverging"
set = ["method=feature"]
pool_from = "diverging"
[[rows]]
name = "mtan"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "table.toml"
    path.write_text(HEAD + text)
    return path


def marked(folder: Path) -> dict[str, str]:
    """An environment by which processes are known, as children inherit it."""
    return {**os.environ, "MTAN_TEST": str(folder)}


def alive(folder: Path) -> list[int]:
    """The processes that were started with this mark, and their children."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"MTAN_TEST={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:  # gone meanwhile
            continue
    return found


def test_rows_are_the_combinations_but_for_those_excluded(tmp_path: Path) -> None:
    table = read_table(str(written(tmp_path, TABLE)))
    rows = rows_of(table)
    assert list(rows) == ["mtan equal", "mtan dwa", "feature equal", "scratch equal", "pool"]
    assert [name for name, row in rows.items() if row.hidden] == ["pool"] and rows["feature equal"].upon == ("pool",)
    every = cells(table)
    assert len({cell.name for cell in every}) == len(every) == 10
    for place, cell in enumerate(every):  # whatever is built upon comes before, with the same seed
        assert all(every.index(other) < place and other.seed == cell.seed for other in sources(cell, every))
    cell = next(cell for cell in every if cell.name == "feature-equal-4")
    config = configuration(table, cell, tmp_path)
    assert (config.seed, config.method, config.optimizer.lr) == (4, "feature", 0.01)
    assert config.pool_from == str(tmp_path / "pool-4") and config.image_size == 24


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "neither"),
        ("[dimensions]\nmethod = []", "different values"),
        ('[dimensions]\nmethod = ["mtan", "mtan"]', "different values"),
        ('[dimensions]\nmethd = ["mtan"]', "did you mean 'method'?"),
        ('[dimensions]\nmethod = ["mtn"]', "did you mean 'mtan'?"),
        ("[dimensions]\nseed = [1, 2]", "does not set by itself"),
        ('[dimensions]\nmethod = ["mtan"]\n[[exclude]]\nmethod = "mtn"', "did you mean 'mtan'?"),
        ('[dimensions]\nmethod = ["mtan"]\n[[exclude]]\nnorm = "domain"', "there is no dimension 'norm'"),
        ('[dimensions]\nmethod = ["mtan"]\n[[exclude]]\nmethod = "mtan"', "at least one row"),
        ('[[rows]]\nname = "a"\npool_from = "b"', "there is no row 'b'"),
        ('[[rows]]\nname = "a"\npool_from = "b"\n[[rows]]\nname = "b"\nteachers = ["a"]', "a waits for b waits for a"),
        ('[[rows]]\nname = "a"\n[[rows]]\nname = "a"', "two called 'a'"),
        ('[[rows]]\nname = "a b"\n[[rows]]\nname = "a/b"', "different folders"),
        ('[[rows]]\nname = "a"\nhidden = true', "at least one row"),
        ('seeds = [1, 1]\n[[rows]]\nname = "a"', "each once"),
        ('reference = "b"\n[[rows]]\nname = "a"', "there is no row 'b'"),
        ('seds = [1]\n[[rows]]\nname = "a"', "did you mean 'seeds'?"),
        ('[[rows]]\nname = "a"\nset = ["method=series"]', "row 'a'"),
    ],
)
def test_a_table_that_cannot_be(mtan: Mtan, tmp_path: Path, text: str, told: str) -> None:
    words = (
        "experiments",
        "sweep",
        written(tmp_path, text),
        "--data",
        tmp_path,
        "--out",
        tmp_path / "out",
        "--dry-run",
    )
    outcome = mtan(*words)
    assert outcome.code == 2 and told in outcome.err and outcome.out == "" and outcome.err.count("\n") == 1


def test_shipped_tables_are_whole() -> None:
    assert {"many-to-many", "nyuv2", "cityscapes2", "cityscapes7", "cityscapes19"} <= set(shipped())
    for name in shipped():
        table = read_table(name)
        assert name.endswith("-small") or f"{name}-small" in shipped()
        assert table.resources.gpus == (0 if name.endswith("-small") else 1)
        if "many" in name:
            assert {row.name for row in rows_of(table).values()} >= set(methods())
        else:
            assert len(rows_of(table)) == (17 if name.startswith(("nyuv2", "cityscapes7")) else 7)


def test_small_dense_tables_take_a_small_root_and_large_ones_of_other_classes_do_not(tmp_path: Path) -> None:
    """All files are looked at before Ray starts, as each row reads them."""
    from experiments.sweep.engine import Sweep, Where  # imports Ray

    root = write_root(tmp_path / "root")
    for name in (name for name in shipped() if name.endswith("-small") and "many" not in name):
        Sweep(tmp_path / "out", read_table(name), Where(str(root))).check()
    with pytest.raises(UserError, match="where the 2 classes end at 1"):
        Sweep(tmp_path / "out", read_table("cityscapes2"), Where(str(root))).check()


def test_a_dry_run_prints_the_trainings(mtan: Mtan, tmp_path: Path) -> None:
    words = (
        "experiments",
        "sweep",
        written(tmp_path, TABLE),
        "--data",
        tmp_path,
        "--out",
        tmp_path / "out",
        "--dry-run",
    )
    found = document(mtan(*words, "--json"))
    assert found["trainings"] == 10 and found["rows"][0]["row"] == "mtan equal"
    assert [one["upon"] for one in found["rows"] if one["row"] == "feature equal"] == [["pool-0"], ["pool-4"]]
    assert "feature-equal-0 (upon pool-0)" in mtan(*words).out
    assert not (tmp_path / "out").exists()
    unknown = mtan("experiments", "sweep", "nyuv", "--data", tmp_path, "--out", tmp_path / "out")
    assert unknown.code == 2 and "did you mean 'nyuv2'?" in unknown.err


def test_a_killed_sweep_is_finished_and_failures_are_marked(challenge: Tiny, tmp_path: Path) -> None:  # noqa: F811
    out, storage = tmp_path / "out", tmp_path / "storage"
    words = command("sweep", written(tmp_path, KILLED), "--data", challenge.store, "--out", out,
                    "--storage", storage.as_uri(), "--annotations", challenge.hidden)  # fmt: skip
    pool, feature = out / "runs" / "pool-3", out / "runs" / "feature-3"
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(words, stdout=log, stderr=log, env=marked(tmp_path))
        wait_until(lambda: driver.poll() is not None or list(feature.glob("checkpoints/step-*")), 150)
        for process in alive(tmp_path):  # as when the machine dies
            os.kill(process, signal.SIGKILL)
        driver.wait()
    assert (pool / "summary.json").is_file() and not (feature / "summary.json").exists(), (tmp_path / "log").read_text()
    finished = (pool / "summary.json").stat().st_mtime_ns

    done = subprocess.run(command("resume", out, "--json"), capture_output=True, text=True, timeout=240, check=False,
                          env=marked(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not alive(tmp_path), 30)
    found = json.loads(done.stdout)
    assert (found["runs"], found["finished"], found["failed"]) == (5, 3, 2)
    errors = {failure["row"]: failure["error"] for failure in found["failures"]}
    assert "finite loss" in errors["diverging"] and "it builds upon 'diverging'" in errors["upon the diverging"]
    assert [group["name"] for group in found["comparison"]["groups"]] == ["feature", "mtan"]
    assert (pool / "summary.json").stat().st_mtime_ns == finished  # it was not run again
    metrics = pd.read_parquet(feature / "metrics.parquet")
    assert sorted(metrics["epoch"].unique()) == list(range(1, 13)) and len(metrics) == 12 * 3
    for kind, told in (("md", "finite loss"), ("csv", "feature"), ("tex", "tabular"), ("json", '"mtan"')):
        assert told in (out / f"table.{kind}").read_text()
    plain = train(load_config("quickstart", None, TINY), str(challenge.store), tmp_path / "plain")
    own = next(group for group in found["comparison"]["groups"] if group["name"] == "mtan")["measures"]
    assert own["mean"]["mean"] == plain["mean_val_accuracy"] and {"test mean", "test svhn", "score"} <= set(own)

    (out / "runs" / "mtan-3").rename(tmp_path / "moved")  # another machine's, as far as this one knows
    assert Mirror(str(storage), "mtan-3").pull(out / "runs" / "mtan-3")
    assert (out / "runs" / "mtan-3" / "results.json").read_bytes() == (tmp_path / "moved" / "results.json").read_bytes()


def test_a_mirror_gives_the_latest_whole_copy(tmp_path: Path) -> None:
    mine, mirror = tmp_path / "mine", Mirror(str(tmp_path / "storage"), "run")
    assert not mirror.pull(tmp_path / "theirs")
    (mine / "checkpoints").mkdir(parents=True)
    for text in ("first", "second"):
        (mine / "checkpoints" / "weights").write_text(text)
        mirror.push(mine)
    (tmp_path / "storage" / "run" / "3").mkdir()  # one that was interrupted
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "old").write_text("")
    assert mirror.pull(tmp_path / "theirs")
    assert [path.name for path in (tmp_path / "theirs").rglob("*") if path.is_file()] == ["weights"]
    assert (tmp_path / "theirs" / "checkpoints" / "weights").read_text() == "second"
    assert not (tmp_path / "storage" / "run" / "1").exists()


def test_what_cannot_be_swept(challenge: Tiny, mtan: Mtan, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "out"
    words = ["experiments", "sweep", written(tmp_path, '[[rows]]\nname = "a"\nset = ["domains=gtsrb"]'), "--out", out]
    assert "no domain 'gtsrb'" in mtan(*words, "--data", challenge.store).err
    assert mtan(*words, "--data", tmp_path / "nothing").code == 2
    words[2] = written(tmp_path, '[[rows]]\nname = "a"')
    stripped = mtan(*words, "--data", challenge.store, "--annotations", challenge.annotations)
    assert stripped.code == 2 and "found a file without" in stripped.err
    assert not out.exists()
    out.mkdir()
    (out / "something").write_text("")
    taken = mtan(*words, "--data", challenge.store)
    assert taken.code == 2 and "resume" in taken.err
    (out / "sweep.json").write_text("{")
    assert "damaged" in mtan("experiments", "resume", out).err


def test_the_documented_table_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "sweep.md"
    (tmp_path / "t.toml").write_text(page.read_text().split("```toml\n")[1].split("```")[0])
    table = read_table(str(tmp_path / "t.toml"))
    assert len(cells(table)) == 18 and rows_of(table)["series equal"].upon == ("pool",)


@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_is_taken_for_the_wish_to_stop(ignored: bool) -> None:
    """Shells have commands in the background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as leaving, interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert leaving.value.code == 130
