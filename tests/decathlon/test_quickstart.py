"""The main job, start to finish, on a network too small and a training too short to learn much."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from decathlon.quickstart import quickstart
from mtan_core.errors import UserError

TINY = ["network.width=1", "image_size=24", "batch_size=8", "steps_per_epoch=2", "phases.0.epochs=1", "threads=1"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quickstart")
    quickstart(out, 0, TINY)
    return out


def test_it_leaves_what_the_design_names(done: Path) -> None:
    assert {"miniature", "store", "run", "results.json", "figures"} <= {path.name for path in done.iterdir()}
    labelled = (done / "miniature" / "annotations_hidden").glob("*_test.json")
    images = sum(len(json.loads(path.read_text())["images"]) for path in labelled)
    assert len(json.loads((done / "results.json").read_text())) == images
    assert {path.name for path in (done / "figures").iterdir()} == {"accuracy.png", "curves.png", "masks.png"}


def test_again_it_does_nothing_twice(done: Path) -> None:
    weights = sorted((done / "run").rglob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    result = quickstart(done, 0, TINY)
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert [row["domain"] for row in result["rows"]] == sorted(row["domain"] for row in result["rows"])
    assert all(0 <= row["test"] <= 1 and row["classes"] * row["chance"] == pytest.approx(1) for row in result["rows"])
    assert any("not comparable" in note for note in result["notes"])


def test_another_seed_and_other_peoples_folders_are_refused(done: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seed 0"):
        quickstart(done, 1, TINY)
    (tmp_path / "miniature").mkdir()
    (tmp_path / "miniature" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="none of its own"):
        quickstart(tmp_path, 0, TINY)
    assert (tmp_path / "miniature" / "mine.txt").read_text() == "precious"


def test_only_submit_looks_at_test_images(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but `submit` works on a store from which the test splits are gone."""
    from decathlon import quickstart as module
    from decathlon.data.store import Store

    looked = []
    real = Store.split

    def watched(store: Store, domain: str, split: str) -> object:
        if split == "test":
            looked.append(domain)
        return real(store, domain, split)

    monkeypatch.setattr(Store, "split", watched)
    monkeypatch.setattr(module, "submit_run", lambda *_: None)
    quickstart(done, 0, TINY)
    assert not looked


def test_the_command_prints_the_table(done: Path, mtan: Callable[..., object]) -> None:
    outcome = mtan("quickstart", "--out", done, "--seed", "1")
    assert outcome.code == 2  # type: ignore[attr-defined]
    assert "seed 0" in outcome.err  # type: ignore[attr-defined]


@pytest.mark.slow
def test_ten_domains_are_learnt(tmp_path: Path) -> None:
    """The promise of `make quickstart`: at least 80 % on average, no domain under 50 % (pedestrians: 75 %)."""
    command = [
        sys.executable,
        "-c",
        "from experiments.cli import main; main()",
        "quickstart",
        "--json",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    accuracy = {row["domain"]: row["test"] for row in result["rows"]}
    assert result["mean_test_accuracy"] >= 0.8
    assert min(accuracy.values()) >= 0.5
    assert accuracy["daimlerpedcls"] >= 0.75
