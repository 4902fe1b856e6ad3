"""The table of dense methods and weightings, on images and networks too small to learn anything."""

import json
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from experiments.small import dense
from mtan_core.errors import UserError
from tests.dense_tasks.roots import write_root

TINY = ["--size", "16x32", "--set", "network.filters=[3, 4]", "--set", "phases.0.epochs=1", "--set", "batch_size=2"]
ASKED = ["--rows", "single,mtan dwa", "--seeds", "0,1", *TINY]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_root(tmp_path_factory.mktemp("small") / "root", train=3, val=2)


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table")
    dense.main([str(root), str(out), *ASKED])
    return out


def test_every_row_is_measured_by_every_rule_and_scheme(made: Path) -> None:
    results = json.loads((made / "results.json").read_text())
    assert [(result["row"], result["seed"]) for result in results] == [
        ("constant", 0), ("single", 0), ("single", 1), ("mtan dwa", 0), ("mtan dwa", 1)
    ]  # fmt: skip
    for result in results[1:]:
        config = (made / f"{result['row'].replace(' ', '-')}-{result['seed']}" / "run" / "config.toml").read_text()
        assert f'method = "{result["method"]}"' in config and f'kind = "{result["weighting"]}"' in config
        assert result["rules"]["last"]["semantic"]["miou"] == pytest.approx(
            result["last_by_scheme"]["whole-set"]["semantic"]["miou"], abs=1e-6
        )
    text = (made / "table.md").read_text()
    assert all(word in text for word in ("whole-set", "last epoch", "legacy", "best by val", "mean of the last ten"))


def test_what_is_measured_is_not_trained_again(made: Path, root: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*.safetensors")}
    table = (made / "table.md").read_text()
    dense.main([str(root), str(made), *ASKED])
    assert before and before == {file: file.stat().st_mtime_ns for file in made.rglob("*.safetensors")}
    assert (made / "table.md").read_text() == table


def test_images_and_labels_are_the_roots_own_made_smaller(made: Path, root: Path) -> None:
    label, own = (np.load(path / "val" / "label" / "1.npy") for path in (root, made / "root"))
    assert (own == label[1::2, 1::2]).all()
    image, own = (np.load(path / "train" / "image" / "2.npy") for path in (root, made / "root"))
    assert own.shape == (16, 32, 3)
    assert own.mean() == pytest.approx(image.mean(), abs=0.01)


def test_the_constant_answer_is_chosen_on_train_and_measured_on_val(made: Path) -> None:
    def labels(split: str, folder: str) -> np.ndarray:
        files = sorted((made / "root" / split / folder).glob("*.npy"))
        return np.stack([np.load(file) for file in files]).astype(np.float64)

    (found,) = [r for r in json.loads((made / "results.json").read_text()) if r["row"] == "constant"]
    told = found["rules"]["last"]
    learnt, asked = (labels(split, "label") for split in ("train", "val"))
    classes, counts = np.unique(learnt[learnt >= 0], return_counts=True)
    assert told["semantic"]["pixel_accuracy"] == pytest.approx((asked[asked >= 0] == classes[counts.argmax()]).mean())
    learnt, asked = (labels(split, "depth") for split in ("train", "val"))
    middle = np.sort(learnt[learnt > 0])[((learnt > 0).sum() - 1) // 2]
    assert told["depth"]["absolute_error"] == pytest.approx(np.abs(asked[asked > 0] - middle).mean(), rel=1e-5)
    learnt, asked = (labels(split, "normal").reshape(-1, 3) for split in ("train", "val"))
    direction = learnt.sum(0) / np.linalg.norm(learnt.sum(0))
    asked = asked[(asked != 0).any(1)]
    cosine = (asked @ direction) / np.linalg.norm(asked, axis=1)
    assert told["normal"]["angle_mean"] == pytest.approx(np.degrees(np.arccos(cosine)).mean(), abs=1e-3)


def test_deltas_are_against_the_mean_of_the_single_runs(made: Path) -> None:
    results = json.loads((made / "results.json").read_text())
    assert dense.deltas(results, "single", "last") == []
    own = [result["rules"]["last"] for result in results if result["row"] == "mtan dwa"]
    alone = [result["rules"]["last"] for result in results if result["row"] == "single"]

    def change(run: dict[str, dict[str, float]], task: str, names: list[str], better: int) -> float:
        base = {name: mean(single[task][name] for single in alone) for name in names}
        return mean(better * (run[task][name] / base[name] - 1) for name in names)

    for run, found in zip(own, dense.deltas(results, "mtan dwa", "last"), strict=True):
        angles = [2 / 5 * change(run, "normal", ["angle_mean", "angle_median"], -1),
                  3 / 5 * change(run, "normal", ["within_11.25", "within_22.5", "within_30"], 1)]  # fmt: skip
        tasks = [
            change(run, "semantic", ["miou", "pixel_accuracy"], 1),
            change(run, "depth", ["absolute_error", "relative_error"], -1),
            sum(angles),
        ]
        assert found == pytest.approx(100 * mean(tasks))


def test_a_size_that_the_network_cannot_take_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="divide by 16"):
        dense.main([str(root), str(tmp_path / "out"), "--size", "50x64"])
    assert not (tmp_path / "out").exists()
