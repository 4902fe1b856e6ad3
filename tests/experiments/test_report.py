"""`mtan experiments report`: what stands on the page; how a browser shows it is in `test_report_browser.py`."""

import json
import re
import shutil
from pathlib import Path

import pytest

from experiments.report.build import find_runs, write_report
from experiments.report.charts import lines, nice
from tests.conftest import Mtan, document
from tests.decathlon.conftest import Tiny, challenge, train_tiny, trained

__all__ = ["challenge", "trained"]


@pytest.fixture(scope="module")
def page(challenge: Tiny, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one run with its data."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report([trained], out, str(challenge.store))
    return out


def test_the_page_needs_nothing_else_and_says_what_was_run(page: Path, trained: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#)', text) and "@import" not in text and "url(" not in text
    summary = json.loads((trained / "summary.json").read_text())
    for told in (
        summary["commit"],
        summary["torch"],
        "NOT COMPARABLE",
        "Configuration",
        f"{summary['mean_val_accuracy']:.1%}",
    ):
        assert told in text
    assert "Confusion matrix of dtd" in text and "Left out" not in text


def test_without_data_it_says_what_is_left_out(mtan: Mtan, trained: Path, tmp_path: Path) -> None:
    found = document(mtan("experiments", "report", trained, "--out", tmp_path / "r.html", "--json"))
    assert found["runs"] == [str(trained)]
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Left out without --data STORE" in text and "<img" not in text


def test_many_runs_are_set_side_by_side(challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    train_tiny(challenge.store, tmp_path / "runs" / "ones", "network.mask_activation=ones", "phases=[{epochs = 1}]")
    shutil.copytree(trained, tmp_path / "runs" / "first")
    assert len(find_runs([tmp_path])) == 2
    write_report([tmp_path / "runs"], tmp_path / "r.html", str(challenge.store))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Side by side" in text and "switched off" in text


def test_names_cannot_break_the_page(trained: Path, tmp_path: Path) -> None:
    write_report([trained], tmp_path / "r.html", title="<script>alert(1)</script>")
    assert "<script>alert" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<b>" not in lines("a", {"<b>": [(1, 1), (2, 3)]})
    assert [nice(value) for value in (0, 0.9, 3, 7, 11)] == [1.0, 1.0, 4.0, 8.0, 20.0]


def test_mistakes_are_told_before_anything_is_written(mtan: Mtan, trained: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(trained, unfinished)
    (unfinished / "summary.json").unlink()
    out = tmp_path / "r.html"
    for words, told in (
        ((tmp_path / "nothing", "--out", out), "Expected a run's folder"),
        ((unfinished, "--out", out), str(unfinished)),
        ((trained, "--out", tmp_path / "r.pdf"), ".html"),
        ((trained, "--out", out, "--data", tmp_path), "image store"),
        ((trained, trained, "--out", tmp_path), "folder"),
    ):
        outcome = mtan("experiments", "report", *words)
        assert (outcome.code, outcome.out) == (2, "") and told in outcome.err
        assert not out.exists()
