"""Dense runs from configuration to results: every method, weighting and mode learns, and what is told of it is true."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dense_tasks import load_run
from dense_tasks.config import load_config
from dense_tasks.datasets import DATASETS
from dense_tasks.metrics import delta_mtl
from dense_tasks.networks import methods
from dense_tasks.runs import DenseFolder
from dense_tasks.tasks import choose_tasks
from dense_tasks.training import prepare_training
from mtan_core.checkpoint import read_state, read_tensors
from mtan_core.weightings import weightings
from tests.conftest import Mtan, document
from tests.dense_tasks.conftest import tiny, train_tiny
from tests.dense_tasks.roots import write_root

ONE_EPOCH = "phases=[{epochs = 1}]"
TASKS = ["semantic", "depth", "normal"]


@pytest.mark.parametrize("method", methods())
def test_every_method_learns_and_is_evaluated(mtan: Mtan, root: Path, tmp_path: Path, method: str) -> None:
    run = tmp_path / "run"
    words = ("dense", "train", "--data", root, "--run", run, "--json", "--method", method)
    summary = document(mtan(*words, *tiny(ONE_EPOCH, "batch_size=4")))
    assert summary == json.loads((run / "summary.json").read_text())
    assert (summary["method"], summary["tasks"], summary["steps"], summary["images"]) == (method, TASKS, 1, 4)
    told = document(mtan("dense", "evaluate", run, "--data", root, "--json"))
    for task, measures in summary["val_last"].items():
        assert measures == pytest.approx({name: told["tasks"][task][name] for name in measures}, abs=1e-6)


@pytest.mark.parametrize("kind", weightings())
def test_every_weighting_learns(root: Path, tmp_path: Path, kind: str) -> None:
    summary = train_tiny(root, tmp_path / "run", "method=split-standard", f"weighting.kind={kind}")
    assert summary["weighting"] == kind and summary["steps"] == 4
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert len(metrics) == 2 * len(TASKS) and metrics["weight"].notna().all()
    if kind in ("equal", "dwa", "random", "gradnorm"):
        assert metrics.groupby("epoch")["weight"].sum().to_numpy() == pytest.approx(3, abs=1e-5)


def test_gradnorm_looks_at_the_last_convolution_of_the_pool(root: Path, tmp_path: Path) -> None:
    """That of the finest decoder stage, which is run last, not that of the last module."""
    for method in ("mtan", "split-standard"):
        config = load_config("segnet", None, [f"method={method}", "network.filters=[3,4]", "batch_size=4"])
        training = prepare_training(config, root, tmp_path / "unused")
        last = training.trainer.training.parameters().last
        assert last is training.network.last_shared().weight  # type: ignore[union-attr]
        assert last.shape == (3, 3, 3, 3)


def test_the_loss_falls(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root", train=2, val=2)
    changes = ("phases=[{epochs = 15}]", "method=split-standard", "optimizer.lr=0.03", "evaluate_every=15")
    train_tiny(root, tmp_path / "run", *changes)
    losses = pd.read_parquet(tmp_path / "run" / "metrics.parquet").pivot(index="epoch", columns="task", values="loss")
    for task in TASKS:
        assert losses[task].iloc[-1] < losses[task].iloc[0]
    assert losses["depth"].iloc[-1] < 0.8 * losses["depth"].iloc[0]


def test_a_row_for_each_epoch_and_task_tells_what_was_seen(root: Path, trained: Path) -> None:
    metrics = pd.read_parquet(trained / "metrics.parquet")
    assert metrics["task"].tolist() == 3 * TASKS and metrics["epoch"].tolist() == sorted(3 * [1, 2, 3])
    assert metrics["lr"].to_numpy() == pytest.approx(0.01)
    defined = {
        "semantic": sum(int((np.load(file) >= 0).sum()) for file in (root / "train/label").iterdir()),
        "depth": sum(int((np.load(file) > 0).sum()) for file in (root / "train/depth").iterdir()),
    }
    for task, pixels in defined.items():
        assert metrics[metrics["task"] == task]["pixels"].tolist() == 3 * [pixels]
    assert metrics[metrics["task"] == "depth"]["val_miou"].isna().all()
    assert list((trained / "tensorboard").iterdir())


def test_results_name_the_rule_that_chose_them(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train_tiny(root, run, "method=split-standard", "phases=[{epochs = 12}]", "optimizer.lr=0.05")
    metrics = pd.read_parquet(run / "metrics.parquet")
    depth = metrics[metrics["task"] == "depth"].set_index("epoch")["val_absolute_error"]
    assert summary["val_last"]["depth"]["absolute_error"] == depth.loc[12]
    assert summary["val_mean_of_last_10"]["depth"]["absolute_error"] == pytest.approx(depth.loc[3:].mean())
    means = metrics.groupby("step")["val_key_metric"].mean()
    assert summary["best"] == {"step": means.idxmax(), "accuracy": pytest.approx(means.max())}
    best = metrics[(metrics["step"] == means.idxmax()) & (metrics["task"] == "depth")]["val_absolute_error"].item()
    assert summary["val_best"]["depth"]["absolute_error"] == best


def test_the_best_checkpoint_answers(mtan: Mtan, root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train_tiny(
        root, run, "method=split-standard", "phases=[{epochs = 6}]", "optimizer.lr=0.1", "checkpoint.keep=1"
    )
    words = ("dense", "evaluate", run, "--data", root, "--json", "--checkpoint")
    for choice in ("best", "last"):
        told = document(mtan(*words, choice))
        assert told["checkpoint"] == choice
        for task, measures in summary[f"val_{choice}"].items():
            assert measures == pytest.approx({name: told["tasks"][task][name] for name in measures}, abs=1e-6)
    assert DenseFolder(run).checkpoint("best").name == f"step-{summary['best']['step']}"


def test_phases_follow_each_other(root: Path, tmp_path: Path) -> None:
    phases = "phases=[{epochs = 1}, {epochs = 2, lr = 0.001}]"
    summary = train_tiny(
        root, tmp_path / "run", "method=split-standard", phases, "steps_per_epoch=3", "evaluate_every=5"
    )
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert metrics[metrics["task"] == "depth"]["lr"].tolist() == pytest.approx([0.01, 0.001, 0.001])
    assert (summary["steps"], summary["epochs"]) == (9, 3)
    # validated at the end of each phase
    assert metrics[metrics["task"] == "depth"]["val_loss"].notna().tolist() == [True, False, True]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(DenseFolder(run).checkpoint(), "weights")


def test_the_seed_determines_all(root: Path, tmp_path: Path) -> None:
    changes = (
        ONE_EPOCH,
        "method=split-standard",
        "weighting.kind=random",
        "augment.mirror=true",
        "augment.scales=[1.0, 1.5]",
    )
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_tiny(root, tmp_path / name, *changes, f"seed={seed}")
    a, b, c = (weights_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_the_average_of_the_weights_is_what_answers(mtan: Mtan, root: Path, tmp_path: Path) -> None:
    changes = ("method=split-standard", "optimizer.lr=0.05")
    plain = train_tiny(root, tmp_path / "plain", *changes)
    averaged = train_tiny(root, tmp_path / "averaged", *changes, "ema=0.9")
    assert plain["val_last"] != averaged["val_last"]
    told = document(mtan("dense", "evaluate", tmp_path / "averaged", "--data", root, "--json"))
    depth = averaged["val_last"]["depth"]
    assert depth == pytest.approx({name: told["tasks"]["depth"][name] for name in depth}, abs=1e-6)


@pytest.mark.parametrize("norm", ["domain", "statistics", "shared"])
def test_norms_are_shared_as_said(root: Path, tmp_path: Path, norm: str) -> None:
    train_tiny(root, tmp_path / "run", ONE_EPOCH, f"norm={norm}", "batch_size=4")
    names = [name for name in weights_of(tmp_path / "run") if name.startswith("ladder") and ".masks." not in name]
    assert any(".affine.depth." in name for name in names) == (norm == "domain")
    assert any(".statistics.depth." in name for name in names) == (norm != "shared")


def test_bf16_learns(root: Path, tmp_path: Path) -> None:
    """Parameters, statistics and losses stay in fp32, and results are near."""
    found = {}
    for precision in ("fp32", "bf16"):
        summary = train_tiny(root, tmp_path / precision, ONE_EPOCH, f"precision={precision}", "optimizer.lr=0.001")
        assert all(value.dtype == torch.float32 for value in weights_of(tmp_path / precision).values())
        found[precision] = summary["val_last"]["depth"]["absolute_error"]
    assert found["fp32"] != found["bf16"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.02)


def test_images_without_a_tasks_labels_leave_it_alone(mtan: Mtan, tmp_path: Path) -> None:
    """In half of the steps nothing of depth is known; the others learn on."""
    root = write_root(tmp_path / "root", train=4, val=3)
    for number in (0, 1):
        (root / f"train/depth/{number}.npy").unlink()
    words = ("dense", "train", "--data", root, "--run", tmp_path / "run", "--json")
    outcome = mtan(*words, *tiny())
    assert outcome.code == 2 and "no train/depth/0.npy" in outcome.err
    changes = ("missing_labels=true", "phases=[{epochs = 4}]", "weighting.kind=dtp")
    outcome = mtan(*words, *tiny(*changes))
    assert "2 of 4 images in train have no label of depth" in outcome.err
    document(outcome)
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    known = sum(int((np.load(root / f"train/depth/{number}.npy") > 0).sum()) for number in (2, 3))
    assert metrics[metrics["task"] == "depth"]["pixels"].tolist() == 4 * [known]
    assert np.isfinite(metrics["loss"]).all()


def test_a_step_without_any_label_of_a_task_moves_nothing_of_it(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root", train=2, val=2)
    write_root(tmp_path / "more", train=4, val=2)
    for number in (2, 3):  # these have images, and classes alone
        for folder in ("image", "label"):
            shutil.copy(tmp_path / f"more/train/{folder}/{number}.npy", root / f"train/{folder}/{number}.npy")
    config = load_config("segnet", None, ["network.filters=[3,4]", "missing_labels=true", "optimizer.weight_decay=0.1"])
    training = prepare_training(config, root, tmp_path / "unused")
    step, network = training.trainer.training, training.network.train()
    frames = [training.trainer.batch("images", number) for number in range(8)]
    bare = [batch for batch in frames if not (batch.labels["depth"] > 0).any()]  # type: ignore[attr-defined]
    full = [batch for batch in frames if (batch.labels["depth"] > 0).all(0).any()]  # type: ignore[attr-defined]
    assert full and bare, "the draws of this seed have batches of both kinds"
    assert set(step({"images": full[0]})) == set(TASKS)  # from here on there is momentum
    before = {name: value.clone() for name, value in network.named_parameters()}
    assert set(step({"images": bare[0]})) == {"semantic"}
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("heads.semantic") for name in moved) and any(name.startswith("pool") for name in moved)
    assert not any(".depth." in name or ".normal." in name for name in moved)


# Answers


def test_curves_are_drawn(mtan: Mtan, root: Path, trained: Path, tmp_path: Path) -> None:
    words = ("dense", "evaluate", trained, "--data", root, "--json", "--figure")
    document(mtan(*words, tmp_path / "curves.png"))
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 500
    outcome = mtan(*words, tmp_path / "curves.pdf")
    assert outcome.code == 2 and not (tmp_path / "curves.pdf").exists()
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run/metrics.parquet").unlink()  # as an imported run
    outcome = mtan("dense", "evaluate", tmp_path / "run", "--data", root, "--figure", tmp_path / "none.png")
    assert outcome.code == 2 and "metrics.parquet" in outcome.err and not (tmp_path / "none.png").exists()


def test_answers_do_not_depend_on_the_batch_size(mtan: Mtan, root: Path, trained: Path) -> None:
    words = ("dense", "evaluate", trained, "--data", root, "--split", "train", "--json", "--batch-size")
    first, *others = [document(mtan(*words, size))["tasks"] for size in (1, 3, 4)]
    for other in others:
        for task in TASKS:
            assert other[task] == pytest.approx(first[task], rel=1e-6)


@pytest.mark.parametrize("metric", ["whole-set", "legacy", "legacy-defined"])
def test_the_scheme_is_named(mtan: Mtan, root: Path, trained: Path, metric: str) -> None:
    words = ("dense", "evaluate", trained, "--data", root, "--metric", metric)
    told = document(mtan(*words, "--json"))
    assert told["metric"] == metric and told["split"] == "val" and told["delta_mtl"] is None
    assert f"metric {metric}" in mtan(*words).out
    if metric != "whole-set":
        whole = document(mtan("dense", "evaluate", trained, "--data", root, "--json"))
        assert whole["tasks"]["semantic"]["miou"] != told["tasks"]["semantic"]["miou"]
        assert whole["tasks"]["depth"] == told["tasks"]["depth"]


def test_the_gain_over_another_run(mtan: Mtan, root: Path, trained: Path, split: Path) -> None:
    words = ("dense", "evaluate", trained, "--data", root, "--against")
    assert document(mtan(*words, trained, "--json"))["delta_mtl"] == 0
    told = document(mtan(*words, split, "--json"))
    other = document(mtan("dense", "evaluate", split, "--data", root, "--json"))["tasks"]
    measures = {name: task.measures for name, task in choose_tasks(None, DATASETS["nyuv2"]).items()}
    assert told["delta_mtl"] == pytest.approx(delta_mtl(told["tasks"], other, measures))
    assert told["against"] == str(split)
    assert "Delta-MTL" in mtan(*words, split).out


def test_fewer_tasks_are_compared_and_more_refused(mtan: Mtan, root: Path, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("dense", "train", "--data", root, "--run", run, "--tasks", "depth", "--method", "stan", "--json")
    assert document(mtan(*words, *tiny(ONE_EPOCH)))["tasks"] == ["depth"]
    told = document(mtan("dense", "evaluate", run, "--data", root, "--against", trained, "--json"))
    assert set(told["tasks"]) == {"depth"} and np.isfinite(told["delta_mtl"])
    outcome = mtan("dense", "evaluate", trained, "--data", root, "--against", run)
    assert outcome.code == 2 and "found none of semantic" in outcome.err


def test_a_loaded_run_answers_as_promised(root: Path, trained: Path) -> None:
    """Class scores, metres, unit vectors; other sizes too; the same for all ways to batch."""
    run = load_run(trained)
    images = torch.rand(2, 3, 48, 64)
    with torch.inference_mode():
        outputs = run.network(images)
        alone = run.network(images[:1])
    assert list(outputs) == TASKS
    assert [tuple(output.shape) for output in outputs.values()] == [(2, 13, 48, 64), (2, 1, 48, 64), (2, 3, 48, 64)]
    torch.testing.assert_close(outputs["normal"].norm(dim=1), torch.ones(2, 48, 64))
    for task, output in alone.items():
        torch.testing.assert_close(output, outputs[task][:1], atol=1e-5, rtol=1e-4)


def test_a_run_remembers_what_it_was_made_of(trained: Path) -> None:
    config, facts = DenseFolder(trained).config(), DenseFolder(trained).facts()
    assert config.network.filters == (3, 4) and facts.size == (32, 64) and list(facts.tasks) == TASKS
    state = read_state(DenseFolder(trained).checkpoint())
    assert state["finished"] and state["position"]["epochs"] == 3
    summary = json.loads((trained / "summary.json").read_text())
    assert {"torch", "python", "commit", "seconds", "device"} <= set(summary)


def test_a_loss_that_is_not_finite_stops_by_name(mtan: Mtan, root: Path, tmp_path: Path) -> None:
    words = ("dense", "train", "--data", root, "--run", tmp_path / "run")
    outcome = mtan(*words, *tiny("optimizer.kind=sgd", "optimizer.lr=1e30", "method=split-standard"))
    assert outcome.code == 2 and "Traceback" not in outcome.err
    told = outcome.err.splitlines()[-1]
    assert any(f"mtan: {name}: expected a finite loss" in told for name in TASKS) and "optimizer.lr" in told
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("written", ["network.filters=3,4", "network.filters=[3,4]"])
def test_a_list_is_written_with_commas_as_in_the_reference(written: str) -> None:
    assert load_config("segnet", None, [written]).network.filters == (3, 4)
