"""Training, evaluating and submitting on a tiny store, through the command and from Python."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import decathlon
from decathlon.building import build_network
from decathlon.config import load_config, parse_config
from decathlon.data.store import open_store
from decathlon.evaluation import predict_domain
from decathlon.runs import RunFolder
from mtan_core.checkpoint import checkpoints, read_state, read_tensors
from mtan_core.errors import UserError
from tests.conftest import Mtan, document
from tests.decathlon.conftest import DOMAINS, SIZES, TINY, TRAINED, Tiny, tiny, train_tiny, write_picture
from tests.decathlon.images import store_split


@pytest.fixture(scope="session")
def train_and_val(challenge: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("train-and-val") / "run"
    train_tiny(challenge.store, run, "protocol=train+val", "norm=shared")
    return run


def test_it_learns(trained: Path) -> None:
    """The tiny domains' classes differ in colour; chance is a half and two thirds of errors."""
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["mean_val_accuracy"] > 0.6
    rows = pd.read_parquet(trained / "metrics.parquet").groupby("epoch")["loss"].mean()
    assert rows.iloc[-1] < 0.8 * rows.iloc[0]


def test_a_run_folder_holds_what_the_design_names(trained: Path) -> None:
    assert {child.name for child in trained.iterdir()} == {
        "config.toml", "domains.json", "metrics.parquet", "summary.json", "checkpoints", "tensorboard",
    }  # fmt: skip
    config = parse_config(tomllib.loads((trained / "config.toml").read_text()), "here")
    assert config == load_config("quickstart", None, [*TINY, *TRAINED])
    last = RunFolder(trained).checkpoint()
    assert {file.name for file in last.iterdir()} == {"weights.safetensors", "state.json"}
    assert any(file.name.startswith("events.out.tfevents") for file in (trained / "tensorboard").iterdir())
    assert list(RunFolder(trained).specs()) == list(DOMAINS)


def test_metrics_have_a_row_for_each_epoch_and_domain(trained: Path) -> None:
    metrics = pd.read_parquet(trained / "metrics.parquet")
    assert set(metrics.columns) == {
        "epoch", "step", "domain", "lr", "weight", "images", "loss", "accuracy", "val_loss", "val_accuracy",
    }  # fmt: skip
    assert metrics["domain"].tolist() == list(DOMAINS) * 4
    assert metrics["step"].tolist() == [4] * 3 + [8] * 3 + [12] * 3 + [16] * 3
    assert (metrics["images"] == 32).all()
    assert metrics.drop(columns="domain").notna().all().all()
    assert metrics[metrics["domain"] == "dtd"]["lr"].is_monotonic_decreasing


def test_a_domain_that_was_not_drawn_is_still_validated(challenge: Tiny, tmp_path: Path) -> None:
    summary = train_tiny(challenge.store, tmp_path / "run", 'phases=[{epochs = 1, domains = ["dtd"]}]')
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet").set_index("domain")
    assert metrics["loss"].notna().to_dict() == {"daimlerpedcls": False, "dtd": True, "svhn": False}
    assert metrics["images"].to_dict() == {"daimlerpedcls": 0, "dtd": 32, "svhn": 0}
    assert metrics["val_accuracy"].to_dict() == summary["val_accuracy"]


def test_the_best_checkpoint_is_kept(challenge: Tiny, trained: Path, tmp_path: Path, mtan: Mtan) -> None:
    run = tmp_path / "run"
    train_tiny(challenge.store, run, "phases=[{epochs = 5}]", "checkpoint.keep=1", "checkpoint.every_epochs=4",
               "optimizer.schedule=constant", "optimizer.lr=0.3", "ema=0")  # fmt: skip
    metrics = pd.read_parquet(run / "metrics.parquet")
    means = metrics.groupby("step")["val_accuracy"].mean()
    best = int(means.idxmax())
    assert RunFolder(run).checkpoint("best").name == f"step-{best}"
    assert {path.name for path in checkpoints(run / "checkpoints")} == {f"step-{best}", "step-20"}
    seen = document(mtan("decathlon", "evaluate", run, "--data", challenge.store, "--checkpoint", "best", "--json"))
    assert seen["checkpoint"] == "best"
    assert np.mean([row["accuracy"] for row in seen["domains"].values()]) == pytest.approx(means.max())


def test_evaluation_agrees_with_the_last_validation(mtan: Mtan, challenge: Tiny, trained: Path) -> None:
    seen = document(mtan("decathlon", "evaluate", trained, "--data", challenge.store, "--json"))
    assert {key: seen[key] for key in ("split", "protocol", "checkpoint")} == {
        "split": "val", "protocol": "train", "checkpoint": "last",
    }  # fmt: skip
    summary = json.loads((trained / "summary.json").read_text())
    assert {name: row["accuracy"] for name, row in seen["domains"].items()} == summary["val_accuracy"]
    for row in seen["domains"].values():
        assert row["seen"] == SIZES["val"] and row["accuracy"] == row["correct"] / row["seen"]


def test_evaluation_is_the_same_for_any_batch_size(mtan: Mtan, challenge: Tiny, trained: Path) -> None:
    words = ("decathlon", "evaluate", trained, "--data", challenge.store, "--json", "--batch-size")
    whole = document(mtan(*words, 100))
    assert document(mtan(*words, 1)) == whole and document(mtan(*words, 7)) == whole


def test_confusion_matrices_add_up(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    words = ("decathlon", "evaluate", trained, "--data", challenge.store, "--json", "--confusion", tmp_path / "c.json")
    rows = document(mtan(*words))["domains"]
    for name, matrix in json.loads((tmp_path / "c.json").read_text()).items():
        assert np.array(matrix).sum() == SIZES["val"]
        assert np.trace(np.array(matrix)) == rows[name]["correct"]
        assert len(matrix) == (2 if name == "daimlerpedcls" else 3)


def test_evaluation_prints_a_table_and_notes(mtan: Mtan, challenge: Tiny, train_and_val: Path) -> None:
    outcome = mtan("decathlon", "evaluate", train_and_val, "--data", challenge.store, "--domains", "svhn")
    assert outcome.code == 0
    assert "svhn" in outcome.out and "dtd" not in outcome.out and "train+val" in outcome.out
    assert "val was trained on" in outcome.out


@pytest.mark.parametrize("command", ["evaluate", "submit"])
def test_notes_stand_beside_the_json_document(
    mtan: Mtan, challenge: Tiny, train_and_val: Path, tmp_path: Path, command: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(train_and_val, run)
    domains = (run / "domains.json").read_text()
    (run / "domains.json").write_text(re.sub('"source": "[a-z]+"', '"source": "miniature"', domains))
    out = ("--out", tmp_path / "r.json") if command == "submit" else ()
    words = ("decathlon", command, run, "--data", challenge.store, "--split", "val", *out)
    outcome, shown = mtan(*words, "--json"), mtan(*words)
    document(outcome)
    for note in ("val was trained on", "generated miniature"):
        assert note in outcome.err and note in shown.out


def test_only_submit_looks_at_test_images(mtan: Mtan, challenge: Tiny, trained: Path) -> None:
    outcome = mtan("decathlon", "evaluate", trained, "--data", challenge.store, "--split", "test")
    assert outcome.code == 2 and outcome.out == "" and "submit" in outcome.err


def test_train_and_val_are_trained_on_without_validation(mtan: Mtan, challenge: Tiny, train_and_val: Path) -> None:
    metrics = pd.read_parquet(train_and_val / "metrics.parquet")
    assert metrics["val_accuracy"].isna().all()
    summary = json.loads((train_and_val / "summary.json").read_text())
    assert summary["protocol"] == "train+val" and summary["best"] is None and summary["mean_val_accuracy"] is None
    assert metrics.groupby("epoch")["images"].sum().iloc[0] >= 3 * (SIZES["train"] + SIZES["val"])
    words = ("decathlon", "evaluate", train_and_val, "--data", challenge.store)
    assert document(mtan(*words, "--json"))["protocol"] == "train+val"
    outcome = mtan(*words, "--checkpoint", "best")
    assert outcome.code == 2 and "train+val" in outcome.err


def test_a_submission_is_validated_and_scored(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    words = ("decathlon", "submit", trained, "--data", challenge.store, "--out", out, "--json", "--zip")
    written = document(mtan(*words))
    assert written["protocol"] == "train" and written["checkpoint"] == "last" and written["split"] == "test"
    assert written["images"] == 3 * SIZES["test"] and Path(written["zip"]).exists()
    valid = document(mtan("decathlon", "validate", out, "--annotations", challenge.annotations, "--strict", "--json"))
    assert valid["valid"]
    for results in (out, written["zip"]):
        score = document(mtan("decathlon", "score", results, "--annotations", challenge.hidden, "--json"))
        assert set(score["domains"]) == set(DOMAINS)
        assert all(row["missing"] == 0 for row in score["domains"].values())
        assert np.mean([row["error"] for row in score["domains"].values()]) < 0.5


def test_the_practice_form_scores_as_evaluation_does(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "practice.json"
    document(mtan("decathlon", "submit", trained, "--data", challenge.store, "--out", out, "--split", "val", "--json"))
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in DOMAINS:
        (labels / f"{name}_val.json").write_bytes((challenge.annotations / f"{name}_val.json").read_bytes())
    score = document(mtan("decathlon", "score", out, "--annotations", labels, "--json"))
    seen = document(mtan("decathlon", "evaluate", trained, "--data", challenge.store, "--json"))
    for name, row in seen["domains"].items():
        assert score["domains"][name]["error"] == pytest.approx(1 - row["accuracy"])


def test_views_average_what_the_domain_allows(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    words = ("decathlon", "submit", trained, "--data", challenge.store, "--views", "--json", "--out")
    assert document(mtan(*words, tmp_path / "r.json"))["views"] is True
    first = (tmp_path / "r.json").read_bytes()
    document(mtan(*words, tmp_path / "r.json"))
    assert (tmp_path / "r.json").read_bytes() == first
    assert len(json.loads(first)) == 3 * SIZES["test"]


def test_an_unknown_split_of_submit_is_refused(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    words = ("decathlon", "submit", trained, "--data", challenge.store, "--out", tmp_path / "r.json", "--split")
    outcome = mtan(*words, "train")
    assert outcome.code == 2 and not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("choice", ["last", "best"])
def test_shared_statistics_end_as_each_domains_own(mtan: Mtan, challenge: Tiny, shared_norm: Path, choice: str) -> None:
    """Both checkpoints hold every domain's statistics, which making them anew does not change."""
    weights = read_tensors(RunFolder(shared_norm).checkpoint(choice), "weights")  # type: ignore[arg-type]
    for domain in DOMAINS:
        assert any(f".statistics.{domain}." in name and ".masks." not in name for name in weights)
    words = ("decathlon", "evaluate", shared_norm, "--data", challenge.store, "--checkpoint", choice, "--json")
    kept, anew = document(mtan(*words)), document(mtan(*words, "--reestimate"))
    assert anew["reestimated"] and not kept["reestimated"]
    for name, row in kept["domains"].items():
        assert anew["domains"][name]["correct"] == row["correct"]
        assert anew["domains"][name]["loss"] == pytest.approx(row["loss"], abs=1e-4)
    if choice == "last":
        summary = json.loads((shared_norm / "summary.json").read_text())
        assert {name: row["accuracy"] for name, row in kept["domains"].items()} == summary["val_accuracy"]


def test_with_shared_statistics_the_best_is_told_as_the_last_is_where_it_is_the_last(
    challenge: Tiny, tmp_path: Path
) -> None:
    summary = train_tiny(challenge.store, tmp_path / "run", "norm=shared", "evaluate_every=2")
    assert summary["best"] == {"step": summary["steps"], "accuracy": summary["mean_val_accuracy"]}


def test_a_run_with_shared_statistics_needs_no_training_data_later(
    mtan: Mtan, challenge: Tiny, shared_norm: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for file in challenge.store.rglob("*"):
        if file.is_file() and file.name != "train.arrow":
            (store / file.relative_to(challenge.store)).parent.mkdir(parents=True, exist_ok=True)
            (store / file.relative_to(challenge.store)).write_bytes(file.read_bytes())
    marker = json.loads((store / "store.json").read_text())
    marker["domains"] = {name: ["val", "test"] for name in DOMAINS}
    (store / "store.json").write_text(json.dumps(marker))
    whole = document(mtan("decathlon", "evaluate", shared_norm, "--data", challenge.store, "--json"))
    assert document(mtan("decathlon", "evaluate", shared_norm, "--data", store, "--json")) == whole


def test_a_domain_stuck_at_chance_is_warned_about_by_name(
    challenge: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("network.mask_activation=ones", "optimizer.lr=1e-12", "stuck_epochs=2", "ema=0", "phases=[{epochs = 3}]")
    train_tiny(challenge.store, tmp_path / "stuck", *changes, "label_smoothing=0.99")
    metrics = pd.read_parquet(tmp_path / "stuck" / "metrics.parquet")
    told = capsys.readouterr().err
    for name, rows in metrics.groupby("domain"):
        majority = 6 if name == "daimlerpedcls" else 4
        highs = [max(rows["val_accuracy"].tolist()[start : start + 2]) for start in (0, 1)]
        assert told.count(f"warning: {name} has been at chance") == int(min(highs) <= (majority + 1) / 12)
    assert "at chance" in told


def test_without_validation_the_training_batches_tell_who_is_stuck(
    challenge: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("optimizer.lr=1e-12", "stuck_epochs=2", "ema=0", "phases=[{epochs = 3}]", "protocol=train+val")
    train_tiny(challenge.store, tmp_path / "stuck", *changes)
    metrics = pd.read_parquet(tmp_path / "stuck" / "metrics.parquet")
    told = capsys.readouterr().err
    store = open_store(challenge.store)
    for name, rows in metrics.groupby("domain"):
        labels = np.concatenate([store.split(str(name), split).labels for split in ("train", "val")])  # type: ignore[misc]
        highs = [max(rows["accuracy"].tolist()[start : start + 2]) for start in (0, 1)]
        stuck = min(highs) <= (np.bincount(labels).max() + 1) / len(labels)
        assert told.count(f"warning: {name} has been at chance (accuracy") == int(stuck)
    assert "at chance" in told


def test_a_loss_that_is_not_finite_stops_by_name(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    words = ("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "run")
    outcome = mtan(*words, *tiny("optimizer.lr=1e30"))
    assert outcome.code == 2 and "Traceback" not in outcome.err
    told = outcome.err.splitlines()[-1]
    assert any(f"mtan: {name}: expected a finite loss" in told for name in DOMAINS) and "optimizer.lr" in told
    assert not (tmp_path / "run" / "summary.json").exists()


def test_training_tells_its_summary(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    words = ("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "run", "--json")
    summary = document(mtan(*words, *tiny("phases=[{epochs = 1}]"), "--domains", "svhn", "--weighting", "dwa"))
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["domains"] == ["svhn"] and summary["protocol"] == "train"
    assert summary["seed"] == 3 and summary["steps"] == 4 and summary["images"] == 32
    config = RunFolder(tmp_path / "run").config()
    assert config.domains == ("svhn",) and config.weighting.kind == "dwa"


def test_evaluation_says_which_domains_the_store_lacks(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"format": 1, "domains": {"svhn": ["train", "val", "test"]}}))
    (tmp_path / "svhn").symlink_to(challenge.store / "svhn")
    outcome = mtan("decathlon", "evaluate", trained, "--data", tmp_path)
    assert outcome.code == 0 and "dtd is not in the store" in outcome.out
    words = ("decathlon", "submit", trained, "--data", tmp_path, "--out", tmp_path / "r.json", "--json")
    assert document(mtan(*words))["not_in_store"] == ["daimlerpedcls", "dtd"]


# From Python


def test_a_network_is_built_from_a_preset_by_name() -> None:
    network = decathlon.build("small")
    assert isinstance(network, torch.nn.Module) and len(network.tasks) == 10
    with pytest.raises(AttributeError, match="nothing"):
        decathlon.nothing  # noqa: B018


def test_a_loaded_run_answers_as_the_design_says(challenge: Tiny, trained: Path) -> None:
    run = decathlon.load_run(trained)
    images = {name: torch.randn(2, 3, 24, 24) for name in DOMAINS}
    with torch.inference_mode():
        joint = run.network.joint(images)
        for name, batch in images.items():
            logits = run.network(batch, name)
            assert logits.shape == (2, run.spec(name).classes)
            torch.testing.assert_close(joint[name], logits, rtol=0, atol=1e-5)
    assert run.spec("daimlerpedcls").fit == "squash"
    with pytest.raises(UserError, match="did you mean 'svhn'"):
        run.spec("svnh")


def test_predictions_for_files_are_those_for_the_stored_images(challenge: Tiny, trained: Path) -> None:
    run, store = decathlon.load_run(trained), open_store(challenge.store)
    for name in DOMAINS:
        files = sorted((challenge.root / "data" / name / "test").iterdir())
        answers = run.predict(files, name, top=2)
        labels = predict_domain(run.network, name, run.images(store.split(name, "test")))
        names = run.spec(name).class_names
        assert [answer.labels[0] for answer in answers] == [names[label] for label in labels]
        for file, answer in zip(files, answers, strict=True):
            assert answer.path == file and len(answer.labels) == 2
            assert answer.probabilities[0] >= answer.probabilities[1] and sum(answer.probabilities) <= 1 + 1e-9


def test_files_of_any_size_are_made_as_large_as_official_ones(trained: Path, tmp_path: Path) -> None:
    from decathlon.prediction import read_image

    sizes = {(40, 30): (96, 72), (300, 720): (72, 173), (72, 90): (72, 90), (7, 7): (72, 72)}
    run = decathlon.load_run(trained)
    for (height, width), expected in sizes.items():
        write_picture(tmp_path / f"{height}.png", height, width, (200, 50, 50), seed=1)
        assert read_image(tmp_path / f"{height}.png").shape[:2] == expected
        (answer,) = run.predict([tmp_path / f"{height}.png"], "dtd")
        assert len(answer.labels) == 3 and sum(answer.probabilities) == pytest.approx(1)


def test_what_is_no_image_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no image")
    run = decathlon.load_run(trained)
    for name in ("notes.jpg", "absent.jpg"):
        with pytest.raises(UserError, match=name):
            run.predict([tmp_path / name], "dtd")


# Dry runs


def test_a_dry_run_tells_costs_and_writes_nothing(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("decathlon", "train", "--data", challenge.store, "--run", run, "--dry-run", *tiny())
    cost = document(mtan(*words, "--json"))
    network = build_network(load_config("quickstart", None, TINY), {"daimlerpedcls": 2, "dtd": 3, "svhn": 3})
    assert cost["parameters"] + cost["norm_parameters"] == sum(p.numel() for p in network.parameters())
    assert cost["steps"] == 8 and cost["images_per_step"] == 24
    assert cost["flops_per_step"] > 0 and 0 < cost["memory_bytes"] < cost["available_bytes"]
    assert cost["seconds"] == pytest.approx(8 * cost["seconds_per_step"])
    shown = mtan(*words)
    assert shown.code == 0 and "estimating: 4/4" in shown.err
    for word in ("parameters", "steps", "memory", "time"):
        assert word in shown.out
    assert not run.exists() and list(tmp_path.iterdir()) == []


def test_flops_are_those_of_the_convolutions(mtan: Mtan, challenge: Tiny) -> None:
    """Twice the images cost twice as much, and a network twice as wide about four times."""
    words = ("decathlon", "train", "--data", challenge.store, "--run", "unused", "--dry-run", "--json")
    cost = {name: document(mtan(*words, *tiny(*changes))) for name, changes in (
        ("plain", ("batch_size=4",)), ("batch", ("batch_size=8",)), ("wide", ("batch_size=4", "network.width=2")),
    )}  # fmt: skip
    assert cost["batch"]["flops_per_step"] == pytest.approx(2 * cost["plain"]["flops_per_step"], rel=0.01)
    assert 3 < cost["wide"]["flops_per_step"] / cost["plain"]["flops_per_step"] < 4


def test_a_network_that_cannot_fit_is_refused_before_it_is_made(mtan: Mtan, challenge: Tiny) -> None:
    words = ("decathlon", "train", "--data", challenge.store, "--run", "unused", "--dry-run")
    outcome = mtan(*words, *tiny("network.width=64", "network.depth=1000"))
    assert outcome.code == 2 and "GiB" in outcome.err and "network.width" in outcome.err


def test_a_batch_that_cannot_fit_is_refused_before_it_is_made(mtan: Mtan, tmp_path: Path) -> None:
    """50,000 images of four pixels; a batch of them all, at 512 pixels, would take 150 GB for the images alone."""
    store_split(tmp_path / "store", [np.zeros((2, 2, 3), np.uint8)] * 50_000)
    words = ("decathlon", "train", "--data", tmp_path / "store", "--run", "unused", "--dry-run")
    outcome = mtan(*words, *tiny("batch_size=50000", "image_size=512"))
    assert outcome.code == 2 and "GiB" in outcome.err and "batch_size" in outcome.err


def test_states_of_checkpoints_tell_position_and_best(trained: Path) -> None:
    state = read_state(RunFolder(trained).checkpoint())
    assert state["finished"] and state["position"]["steps"] == 16 and state["position"]["epochs"] == 4
    assert state["best"]["step"] in (4, 8, 12, 16)
