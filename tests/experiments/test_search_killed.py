"""Searches of which a part is killed in the middle of a trial."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from experiments.cluster.session import OBJECTS
from experiments.cluster.watchdog import kill, members
from tests.decathlon.conftest import Tiny
from tests.experiments.searching import LONG, LR, Place, epochs_of, lines_of, went_on, written


def test_a_killed_search_is_finished_without_running_finished_trials_again(
    challenge: Tiny, place: Place, tmp_path: Path
) -> None:
    config = written(tmp_path, LONG + "trials = 3\nconcurrency = 1\n" + LR)
    out = tmp_path / "out"
    ended = place.killed({"Ended": 0}, "search", config, "--data", challenge.store, "--out", out)
    assert ended.done.returncode == -9
    killed = place.killed({"Driver": 1}, "resume", out)
    assert killed.done.returncode == -9 and not (out / "trials.parquet").exists()
    first, second, *_ = lines_of(out)
    assert first[-1]["epoch"] == 12 and 1 < len(second) < 12
    assert all(line["epoch"] > 9 for line in first[12:])  # what Ray's state did not know yet, if anything, came again
    stopped = place.killed({"Stop": 2}, "resume", out, "--json")
    assert stopped.done.returncode == 130 and stopped.done.stdout == "" and "resume" in stopped.done.stderr
    done = place.command("resume", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"] == 3
    assert epochs_of(out) == {number: list(range(1, 13)) for number in range(3)}
    finished, again, last = lines_of(out)
    assert finished == first  # not a line was added to what was finished, none was changed
    assert again[: len(second)] == second and went_on(again, killed.processes["Driver"])
    assert went_on(last, stopped.processes["Stop"])


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of three nodes on this machine: one without CPUs, to which searches connect, and two of one CPU."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    options = {"include_dashboard": False, "object_store_memory": OBJECTS}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **options)
        yield cluster
    finally:
        cluster.shutdown()
        for process in members(str(folder)):
            kill(process)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_killed_worker_and_a_lost_node_cost_no_finished_work(
    challenge: Tiny, place: Place, tmp_path: Path, nodes: Cluster
) -> None:
    config = written(tmp_path, LONG + "trials = 2\n" + LR)
    out = tmp_path / "out"
    words = ("search", config, "--data", challenge.store, "--out", out, "--address", nodes.address, "--json")
    killed = place.killed({"Worker": 0, "Node": 1}, *words)
    assert killed.done.returncode == 0, killed.done.stderr
    assert json.loads(killed.done.stdout)["finished"] == 2
    assert epochs_of(out) == {number: list(range(1, 13)) for number in range(2)}
    beside_worker, beside_node = lines_of(out)
    assert went_on(beside_worker, killed.processes["Worker"]) and went_on(beside_node, killed.processes["Node"])
