"""What is seen of a running search."""

import io
import pickle
from types import SimpleNamespace

import pytest
from rich.console import Console

from experiments.search.config import Dimension, SearchConfig
from experiments.search.live import ROWS, Seen, seen, shown, table

SEARCH = SearchConfig(space={"optimizer.lr": Dimension(uniform=(0.0, 1.0))}, trials=40)


def trial(number: int, status: str, metric: float | None = None) -> Seen:
    return Seen(number, status, None if metric is None else 2, 5, metric, {"optimizer.lr": number / 100})


def text(trials: list[Seen], search: SearchConfig = SEARCH) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table(trials, search, 40, 3725))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_what_runs_and_the_best() -> None:
    trials = [trial(number, "stopped", number / 100) for number in range(35)] + [
        trial(35, "running", 0.9),
        trial(36, "waiting"),
    ]
    trials[3] = trial(3, "finished", 0.95)
    printed = text(trials)
    assert "35 of 40 trials ended, 1:02:05" in printed and "and 17 more" in printed
    assert printed.count("stopped") == ROWS - 2
    (best,) = [line for line in printed.splitlines() if "*" in line and "best" not in line]
    assert best.split() == ["*", "3", "finished", "2/5", "0.95", "0.03"]
    assert any(line.split()[:3] == ["35", "running", "2/5"] for line in printed.splitlines())
    lowest = text(trials, SEARCH.model_copy(update={"mode": "min", "metric": "val_loss.dtd"}))
    assert any(line.split()[:2] == ["*", "0"] for line in lowest.splitlines())


def test_a_metric_that_is_not_finite_is_never_the_best() -> None:
    assert "* 1" in text(
        [trial(0, "running", float("nan")), trial(1, "running", 0.1), trial(2, "failed", float("inf"))]
    )
    assert "*" not in text([trial(0, "waiting")])


def test_rays_words_become_ours() -> None:
    def ray(status: str, last: dict[str, float] | None = None) -> str:
        return seen(0, SimpleNamespace(status=status, last_result=last, config={"point": {}})).status

    after = {"epoch": 2, "epochs": 5, "metric": 0.5}
    assert [ray("PENDING"), ray("PAUSED"), ray("RUNNING")] == ["waiting", "waiting", "running"]
    assert [ray("PAUSED", after), ray("TERMINATED", after), ray("ERROR", after)] == ["paused", "stopped", "failed"]
    assert ray("TERMINATED", {**after, "epoch": 5}) == "finished"


def test_without_a_terminal_it_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(SEARCH, 40) as show:
        show([trial(0, "running", 0.5)])
        show([trial(0, "finished", 0.5), trial(1, "running")])
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.splitlines() == ["search: 1/40, 0 s, done"]


def test_on_a_terminal_it_is_a_table_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with shown(SEARCH, 40) as show:
        show([trial(0, "running", 0.5)])
    printed = capsys.readouterr()
    assert printed.out == "" and "0 of 40 trials ended" in printed.err and "running" in printed.err


def test_the_callback_that_ray_keeps_in_a_file_shows_where_it_is_read() -> None:
    from experiments.search.engine import Watcher, watched

    kept = pickle.dumps(Watcher())
    with watched(SEARCH, 40):
        callback = pickle.loads(kept)
        assert callback.board is Watcher.board is not None
    assert callback.board is None
