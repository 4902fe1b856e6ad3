"""The benchmark of searches counts what it ran."""

import json
import os

import pytest

from experiments.bench.search import memory, print_search
from tests.experiments.searching import Place


def test_a_search_and_a_loop_are_measured(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    done = place.command("bench", "search", "--nothings", "3", "--trainings", "2", "--cores", "1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [document[name]["trials"] for name in ("nothing", "search", "loop")] == [3, 2, 2]
    for name in ("nothing", "search", "loop"):
        row = document[name]
        assert row["trials_per_hour"] == pytest.approx(3600 / row["seconds_per_trial"])
        assert row["peak_memory_gb"] > 0.1  # this process alone has loaded torch
    print_search(document)
    assert "more of a core in the search" in capsys.readouterr().out
    assert memory(os.getpid()) > 10_000_000
