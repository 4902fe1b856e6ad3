"""Delta-MTL as a search's metric: computed by hand, and baselines that cannot be compared with."""

import json
from pathlib import Path

import pytest

from decathlon.config import load_config
from decathlon.data.store import open_store
from decathlon.runs import RunFolder
from dense_tasks.config import load_config as load_dense
from dense_tasks.data.root import open_root
from dense_tasks.runs import DenseFolder, Facts
from experiments.search.config import read_search
from experiments.search.metric import measures, value_of
from experiments.search.references import references
from mtan_core.errors import UserError
from tests.conftest import Mtan
from tests.decathlon.conftest import Tiny, challenge  # noqa: F401 -- a fixture
from tests.dense_tasks.conftest import root  # noqa: F401 -- a fixture
from tests.experiments.searching import HEAD, LR, written

MEASURES = {
    "semantic": {"miou": 0.4, "pixel_accuracy": 0.8},
    "depth": {"absolute_error": 0.5, "relative_error": 0.2},
    "normal": {"angle_mean": 20.0, "angle_median": 10.0, "within_11.25": 0.5, "within_22.5": 0.6, "within_30": 0.8},
}


def domain_run(
    path: Path, store: Path, accuracy: float, domain: str, *more: str, method: str = "mtan", val: str = ""
) -> Path:
    """A finished run's documents, without a network."""
    names = [domain, *more]
    opened, folder = open_store(str(store)), RunFolder(path)
    path.mkdir()
    divisions = {
        name: {
            split: val if split == "val" and val else opened.split(name, split).digest() for split in ("train", "val")
        }
        for name in names
    }
    folder.start(load_config("small", None, [f"method={method}"]), [opened.specs[name] for name in names], divisions)
    folder.write_summary({"val_accuracy": dict.fromkeys(names, accuracy), "mean_val_accuracy": accuracy})
    return path


def search_of(folder: Path, *runs: Path, head: str = HEAD, space: str = LR) -> Path:
    listed = json.dumps([run.name for run in runs])  # relative to the file
    return written(folder, f'{head}metric = "delta_mtl"\nbaselines = {listed}\n{space}')


def test_gain_of_accuracy_over_single_domain_runs(challenge: Tiny, tmp_path: Path) -> None:  # noqa: F811
    dtd = [
        domain_run(tmp_path / f"dtd{number}", challenge.store, each, "dtd") for number, each in enumerate((0.3, 0.5))
    ]
    rest = domain_run(tmp_path / "rest", challenge.store, 0.8, "daimlerpedcls", "svhn", method="scratch")
    search = read_search(search_of(tmp_path, *dtd, rest))
    known = references(search, str(challenge.store))
    rows = [
        {"epoch": 1, "domain": name, "accuracy": 0.1, "val_accuracy": value}
        for name, value in {"daimlerpedcls": 0.8, "dtd": 0.5, "svhn": 0.6}.items()
    ]
    assert value_of("delta_mtl", measures(rows), known) == pytest.approx((0 + 0.1 / 0.4 - 0.2 / 0.8) / 3)
    assert value_of("delta_mtl", measures([{**row, "val_accuracy": None} for row in rows]), known) is None


def test_gain_over_single_task_runs_by_all_measures_of_dense_tasks(root: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = DenseFolder(tmp_path / "single")
    folder.path.mkdir()
    folder.start(load_dense("segnet", None, ["method=single"]), Facts.of(open_root(root)))
    folder.write_summary({"val_last": MEASURES})
    known = references(
        read_search(search_of(tmp_path, folder.path, head='task = "dense"\npreset = "segnet"\n')), str(root)
    )
    better = {"semantic": 1.1, "depth": 0.9, "normal": 1.0}  # lower errors of depth are better
    rows = [
        {
            "epoch": 1,
            "task": task,
            "val_key_metric": 0.5,
            **{f"val_{name}": better[task] * each for name, each in own.items()},
        }
        for task, own in MEASURES.items()
    ]
    assert value_of("delta_mtl", measures(rows), known) == pytest.approx((0.1 + 0.1 + 0) / 3)


def test_baselines_that_cannot_be_compared_with(challenge: Tiny, mtan: Mtan, tmp_path: Path) -> None:  # noqa: F811
    dtd = domain_run(tmp_path / "dtd", challenge.store, 0.5, "dtd")
    svhn = domain_run(tmp_path / "svhn", challenge.store, 0.5, "svhn")
    for told, runs in {
        "the accuracy of daimlerpedcls alone, found none": [dtd, svhn],
        "runs of one task each": [domain_run(tmp_path / "joint", challenge.store, 0.5, "dtd", "svhn")],
        "saw other images of dtd": [domain_run(tmp_path / "other", challenge.store, 0.5, "dtd", val="other")],
        "alone, found 0": [
            domain_run(tmp_path / "zero", challenge.store, 0.0, "dtd", "svhn", "daimlerpedcls", method="scratch")
        ],
        "Expected a run's folder": [tmp_path / "nothing"],
        "`baselines`: expected single-task runs": [],
    }.items():
        words = (
            "experiments",
            "search",
            search_of(tmp_path, *runs),
            "--data",
            challenge.store,
            "--out",
            tmp_path / "out",
        )
        outcome = mtan(*words)
        assert outcome.code == 2 and told in outcome.err and outcome.err.count("\n") == 1, (told, outcome.err)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="alone"):
        read_search(written(tmp_path, HEAD + 'baselines = ["dtd"]\n' + LR))
