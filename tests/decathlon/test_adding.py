"""The eleventh domain: added, trained, broken off, extended, dropped; and all other domains answer as before, bit for bit."""

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from decathlon.adding import add_domain, extended
from decathlon.addition import Addition, cost
from decathlon.building import build_network
from decathlon.config import load_config
from decathlon.data.custom import Choices
from decathlon.data.prepare import prepare
from decathlon.data.store import open_store
from decathlon.dropping import drop_domain
from decathlon.import_weights import import_weights
from decathlon.reports import evaluate_run
from decathlon.runs import RunFolder, load_run
from decathlon.specs import DomainSpec
from experiments.bench.plain import PlainMtan
from mtan_core.checkpoint import read_tensors
from mtan_core.errors import Interrupted, UserError
from mtan_core.methods import methods
from mtan_core.network import owner_of
from tests.conftest import Mtan
from tests.decathlon.conftest import COLOURS, Tiny, train_tiny, write_domain, write_picture
from tests.decathlon.test_resume import Killed, after, same_runs

SHORT = ("phases.0.epochs=2", "steps_per_epoch=3")


@pytest.fixture(scope="session")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes that differ in colour."""
    folder = tmp_path_factory.mktemp("leaves")
    for place, name in enumerate(("ash", "elm", "fir")):
        for i in range(8):
            write_picture(folder / name / f"{i}.jpg", 72 + i, 90, COLOURS[place], seed=100 * place + i)
    return folder


@pytest.fixture(scope="session")
def runs(
    challenge: Tiny, trained: Path, shared_norm: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A finished run of each mode of `norm`."""
    statistics = tmp_path_factory.mktemp("statistics") / "run"
    train_tiny(challenge.store, statistics, "norm=statistics", "phases=[{epochs = 2}]")
    return {"domain": trained, "statistics": statistics, "shared": shared_norm}


def add(source: Path, images: Path, run: Path, *changes: str, name: str = "leaves", **more: Any) -> dict[str, Any]:
    choices = more.pop("choices", Choices())
    unfreeze = more.pop("unfreeze", ())
    return add_domain(Addition(source, name, images, run, choices, [*SHORT, *changes], unfreeze), **more)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def logits_of(run: Path, domains: Sequence[str]) -> dict[str, torch.Tensor]:
    network = load_run(run).network
    images = torch.randn(5, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return {domain: network(images, domain) for domain in domains}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(RunFolder(run).checkpoint(), "weights")


@pytest.mark.parametrize("norm", ["domain", "statistics", "shared"])
@pytest.mark.parametrize(
    "recipe", [(), ("optimizer.kind=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.5", "ema=0.9")]
)
def test_every_old_domain_answers_as_before_bit_for_bit(
    runs: dict[str, Path], leaves: Path, tmp_path: Path, norm: str, recipe: tuple[str, ...]
) -> None:
    source, new = runs[norm], tmp_path / "new"
    before = files_of(source)
    made = add(source, leaves, new, *recipe)
    old = list(RunFolder(source).specs())
    expected, found = logits_of(source, old), logits_of(new, old)
    assert all(torch.equal(found[domain], expected[domain]) for domain in old)
    weights, held = weights_of(new), weights_of(source)
    assert all(value.numpy().tobytes() == weights[name].numpy().tobytes() for name, value in held.items())
    assert {owner_of(name) for name in weights.keys() - held.keys()} == {"leaves"}
    assert files_of(source) == before
    assert made["others_unchanged"] and list(RunFolder(new).specs()) == [*old, "leaves"]


@pytest.mark.parametrize("norm", ["domain", "statistics", "shared"])
def test_a_new_domain_learns(runs: dict[str, Path], leaves: Path, tmp_path: Path, norm: str) -> None:
    made = add(runs[norm], leaves, tmp_path / "new", "phases.0.epochs=6", "steps_per_epoch=6", "ema=0")
    store = open_store(tmp_path / "new" / "store")
    answer = evaluate_run(load_run(tmp_path / "new"), store, "train").answers["leaves"]
    assert answer.tally.accuracy >= 0.8
    assert made["val_accuracy"] == evaluate_run(load_run(tmp_path / "new"), store).answers["leaves"].tally.accuracy


@pytest.mark.parametrize("method", ["feature", "finetune", "piggyback", "mtan+parallel", "universal"])
def test_other_methods_are_extended_too(
    trained: Path, challenge: Tiny, leaves: Path, tmp_path: Path, method: str
) -> None:
    source, new = tmp_path / "source", tmp_path / "new"
    upon = [f"pool_from={trained}", f"distillation.teachers={trained}"]
    train_tiny(challenge.store, source, f"method={method}", *upon, "phases=[{epochs = 1}]")
    made = add(source, leaves, new)
    old = list(RunFolder(source).specs())
    expected, found = logits_of(source, old), logits_of(new, old)
    assert all(torch.equal(found[domain], expected[domain]) for domain in old) and made["others_unchanged"]
    assert all(bool(value.isfinite().all()) for value in weights_of(new).values())
    frozen = methods()[method].frozen
    with pytest.raises(UserError, match="frozen") if frozen else nullcontext():
        add(source, leaves, tmp_path / "thawed", unfreeze=("pool",))


def test_an_imported_run_is_extended(leaves: Path, tmp_path: Path) -> None:
    """The authors' weights: one set of statistics, none of single domains' own, and no training to take the recipe from."""
    torch.manual_seed(0)
    torch.save(PlainMtan([2] * 10, 10, 1).state_dict(), tmp_path / "weights.pth")
    import_weights(tmp_path / "weights.pth", tmp_path / "run")
    made = add_domain(Addition(tmp_path / "run", "leaves", leaves, tmp_path / "new", changes=["phases=[{epochs = 2}]"]))
    before, found = weights_of(tmp_path / "run"), weights_of(tmp_path / "new")
    assert made["number"] == 11 and all(torch.equal(value, found[name]) for name, value in before.items())
    assert {name.split(".statistics.")[1].split(".")[0] for name in found if ".norm1.statistics." in name} >= {"leaves"}


def test_what_is_reported(runs: dict[str, Path], challenge: Tiny, leaves: Path, tmp_path: Path) -> None:
    made = add(
        runs["domain"],
        leaves,
        tmp_path / "new",
        choices=Choices(baseline_error=0.4, mirror=True),
        data=str(challenge.store),
    )
    assert made["images"] == {"train": 19, "val": 5} and made["number"] == 11 and made["mirror"]
    assert (
        sum(made["parameters"][part] for part in ("masks", "head", "norms", "adapters")) == made["parameters"]["total"]
    )
    assert made["share_of_pool"] == made["parameters"]["total"] / made["pool_parameters"]
    assert made["val_points"] == 1000 * max(0.0, 1 - (1 - made["val_accuracy"]) / 0.8) ** 2
    assert set(made["others"]) == {"daimlerpedcls", "dtd", "svhn"}
    assert all(accuracy["before"] == accuracy["after"] for accuracy in made["others"].values())
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert summary["own_parameters"]["leaves"] == made["parameters"]["total"]
    assert summary["domains"] == ["daimlerpedcls", "dtd", "svhn", "leaves"]
    assert set(pd.read_parquet(tmp_path / "new" / "metrics.parquet")["domain"]) == {"leaves"}


@pytest.mark.parametrize(("norm", "norms"), [("domain", 8608), ("statistics", 0), ("shared", 0)])
def test_what_a_domain_costs_on_the_papers_network(norm: str, norms: int) -> None:
    config = load_config("wrn28-4", None, [f"norm={norm}"])
    network = build_network(config, {"svhn": 10, "leaves": 7})
    found = cost(network, "leaves")
    own = {"masks": 261_344, "head": 7 * 257, "norms": norms, "adapters": 0}
    assert found["parameters"] == {**own, "total": sum(own.values())}
    assert found["pool_parameters"] == 5_850_528


def test_the_new_domains_values_do_not_depend_on_the_old_ones_data(runs: dict[str, Path]) -> None:
    """Its masks and head are fresh, its scales begin at the mean of the others'."""
    run = load_run(runs["domain"])
    spec = DomainSpec("leaves", 11, ("a", "b"), (0.5,) * 3, (0.2,) * 3, mirror=False, fit="crop")
    network = extended(run, run.config, spec)
    norm, old = network.task_norms()[0], run.network.task_norms()[0]
    mean = torch.stack([old.affine[task].get_parameter("weight") for task in run.network.tasks]).mean(0)
    assert torch.equal(norm.affine["leaves"].get_parameter("weight"), mean)
    assert network.tasks[-1] == "leaves" and network.heads["leaves"].out_features == 2


@pytest.mark.parametrize("norm", ["domain", "shared"])
def test_broken_off_it_goes_on_bit_for_bit(runs: dict[str, Path], leaves: Path, tmp_path: Path, norm: str) -> None:
    whole, broken, changes = tmp_path / "whole", tmp_path / "broken", ("ema=0.9", "checkpoint.every_steps=2")
    add(runs[norm], leaves, whole, *changes)
    for number, (steps, kill) in enumerate([(1, True), (3, False), (1, True)]):
        with pytest.raises((Killed, Interrupted)):
            add(runs[norm], leaves, broken, *changes, resume=number > 0, stop=after(steps, kill))
    made = add(runs[norm], leaves, broken, *changes, resume=True)
    same_runs(broken, whole)
    assert add(runs[norm], leaves, broken, *changes, resume=True) == made


def test_it_goes_on_by_train_as_well(runs: dict[str, Path], leaves: Path, tmp_path: Path, mtan: Mtan) -> None:
    """A run is a run: its store lies in it, and the old domains' data is not asked for."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    add(runs["domain"], leaves, whole)
    with pytest.raises(Interrupted):
        add(runs["domain"], leaves, broken, stop=after(2, kill=False))
    outcome = mtan("decathlon", "train", "--data", broken / "store", "--run", broken, "--resume", "--json")
    assert outcome.code == 0, outcome.err
    same_runs(broken, whole)


def test_an_extended_run_can_be_extended_and_cut(
    runs: dict[str, Path], leaves: Path, tmp_path: Path, challenge: Tiny, mtan: Mtan
) -> None:
    """Dropping is the inverse of adding, for any domain of the run."""
    first, second = tmp_path / "first", tmp_path / "second"
    add(runs["shared"], leaves, first)
    made = add(first, leaves, second, name="more-leaves")
    assert made["number"] == 12 and made["others_unchanged"]
    kept = ["daimlerpedcls", "dtd", "svhn", "leaves"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(logits_of(first, kept).values(), logits_of(second, kept).values(), strict=True)
    )
    drop_domain(second, "more-leaves", tmp_path / "third")
    assert sorted(weights_of(tmp_path / "third")) == sorted(weights_of(first))
    assert all(torch.equal(value, weights_of(first)[name]) for name, value in weights_of(tmp_path / "third").items())
    summary = drop_domain(tmp_path / "third", "svhn", tmp_path / "fourth")
    assert summary["domains"] == ["daimlerpedcls", "dtd", "leaves"] and summary["dropped"] == ["more-leaves", "svhn"]
    rest = ["daimlerpedcls", "dtd", "leaves"]
    assert all(torch.equal(logits_of(tmp_path / "fourth", rest)[d], logits_of(first, rest)[d]) for d in rest)
    assert open_store(second / "store").domains == ["leaves", "more-leaves"]
    outcome = mtan("decathlon", "evaluate", tmp_path / "fourth", "--data", challenge.store, "--json")
    found = json.loads(outcome.out)["domains"]
    assert set(found) == {"daimlerpedcls", "dtd", "leaves"} and "left out" not in outcome.err
    assert found["leaves"]["seen"] == 5


def test_an_ordinary_run_without_a_domain(trained: Path, challenge: Tiny, tmp_path: Path, mtan: Mtan) -> None:
    outcome = mtan("decathlon", "drop-domain", trained, "dtd", "--run", tmp_path / "less", "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["domains"] == ["daimlerpedcls", "svhn"]
    before = evaluate_run(load_run(trained, "best"), open_store(challenge.store)).to_dict()["domains"]
    found = evaluate_run(load_run(tmp_path / "less", "best"), open_store(challenge.store)).to_dict()["domains"]
    assert found == {name: row for name, row in before.items() if name != "dtd"}
    assert set(pd.read_parquet(tmp_path / "less" / "metrics.parquet")["domain"]) == {"daimlerpedcls", "svhn"}
    resumed = mtan("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "less", "--resume", "--json")
    assert resumed.code == 0


def test_the_official_tenth_domain_evaluates_submits_and_scores(
    trained: Path, challenge: Tiny, tmp_path: Path, mtan: Mtan
) -> None:
    """From a run without it and from its official files: its number, ids, statistics and baseline are the challenge's."""
    less, new, root = tmp_path / "less", tmp_path / "new", tmp_path / "root"
    drop_domain(trained, "dtd", less)
    write_domain(root, "dtd", 4)
    words = [word for change in SHORT for word in ("--set", change)]
    outcome = mtan("decathlon", "add-domain", less, "dtd", "--images", root, "--run", new, *words, "--json")
    assert outcome.code == 0, outcome.err
    made = json.loads(outcome.out)
    assert made["number"] == 4 and made["val_points"] is not None and made["images"]["test"] == 10
    assert list(RunFolder(new).specs()) == ["daimlerpedcls", "dtd", "svhn"]
    results = tmp_path / "results.json"
    submitted = mtan("decathlon", "submit", new, "--data", challenge.store, "--out", results, "--json")
    assert submitted.code == 0 and json.loads(submitted.out)["domains"] == ["daimlerpedcls", "dtd", "svhn"]
    scored = mtan("decathlon", "score", results, "--annotations", challenge.hidden, "--json")
    assert scored.code == 0 and json.loads(scored.out)["domains"]["dtd"]["missing"] == 0


def test_a_domain_without_test_is_left_out_of_a_submission(
    trained: Path, challenge: Tiny, leaves: Path, tmp_path: Path, mtan: Mtan
) -> None:
    add(trained, leaves, tmp_path / "new")
    words = ("decathlon", "submit", tmp_path / "new", "--data", challenge.store, "--out", tmp_path / "results.json")
    outcome = mtan(*words)
    assert outcome.code == 0 and "leaves has no test split and was left out" in outcome.out
    assert len(json.loads((tmp_path / "results.json").read_text())) == 30


def test_unfrozen_parts_learn_and_the_report_says_what_it_cost(
    runs: dict[str, Path], challenge: Tiny, leaves: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    made = add(runs["shared"], leaves, new, "optimizer.lr=0.3", unfreeze=("pool",), data=str(challenge.store))
    before, found = weights_of(runs["shared"]), weights_of(new)
    moved = {name for name, value in before.items() if not torch.equal(value, found[name])}
    assert moved and all(name.startswith("pool.") and owner_of(name) == "shared" for name in moved)
    assert not any(".statistics." in name for name in moved)
    assert not made["others_unchanged"] and set(made["others"]) == {"daimlerpedcls", "dtd", "svhn"}
    assert not any("bit for bit" in note for note in made["notes"])
    blind = add(runs["shared"], leaves, tmp_path / "blind", "optimizer.lr=0.3", unfreeze=("pool", "ladder"))
    assert blind["others"] is None and any("not measured" in note for note in blind["notes"])


def test_without_val_and_under_train_and_val(challenge: Tiny, leaves: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    train_tiny(challenge.store, source, "protocol=train+val", "phases=[{epochs = 1}]")
    made = add(source, leaves, tmp_path / "new", choices=Choices(val_share=0))
    assert made["val_accuracy"] is None and made["images"] == {"train": 24}
    both = add(source, leaves, tmp_path / "both")
    assert both["val_accuracy"] is None and both["images"] == {"train": 19, "val": 5}


def test_epochs_are_as_long_as_in_joint_training(trained: Path, leaves: Path, tmp_path: Path) -> None:
    add_domain(Addition(trained, "leaves", leaves, tmp_path / "new", changes=["phases.0.epochs=1"]))
    summary = json.loads((trained / "summary.json").read_text())
    config = RunFolder(tmp_path / "new").config()
    assert config.steps_per_epoch == summary["steps"] // summary["epochs"] == 4
    assert config.weighting.kind == "equal" and config.phases[0].domains == config.domains == ("leaves",)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("svhn",), "has 'svhn' already"), (("SVHN",), "has 'svhn' already"),
        (("le.aves",), "no dot"), (("../x",), "no dot"), (("shared",), "reserved"),
        (("masks",), "reserved"), (("affine",), "reserved"), (("own",), "reserved"), (("statistics",), "reserved"),
        (("leaves\n",), "no dot"), (("keys",), "reserved"), (("leaves", "--set", "network.width=2"), "`network`"),
        (("leaves", "--set", "norm=shared"), "`norm`"), (("leaves", "--set", "fit.svhn=squash"), "`fit`"),
        (("leaves", "--set", "domains=svhn"), "only domain"), (("leaves", "--set", "phases.0.freeze=masks,heads"), "freeze"),
        (("leaves", "--set", "phases.0.epoch=3"), "phases.0.epochs"), (("leaves", "--unfreeze", "head"), "--unfreeze"),
        (("leaves", "--fit", "stretch"), "--fit"), (("leaves", "--baseline-error", "3"), "baseline_error"),
        (("leaves", "--val-share", "2"), "--val-share"), (("leaves", "--data", "nowhere"), "store"),
        (("leaves", "--checkpoint", "first"), "--checkpoint"), (("leaves", "--on-error", "ask"), "--on-error"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_sentence(
    mtan: Mtan, trained: Path, leaves: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    before = files_of(trained)
    outcome = mtan("decathlon", "add-domain", trained, *words, "--images", leaves, "--run", tmp_path / "new")
    assert outcome.code == 2 and "Traceback" not in outcome.err and outcome.out == ""
    assert told in outcome.err and len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [] and files_of(trained) == before


def test_bad_images_leave_nothing(mtan: Mtan, trained: Path, leaves: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(leaves, images)
    (images / "elm" / "3.jpg").write_bytes(b"no image")
    outcome = mtan("decathlon", "add-domain", trained, "leaves", "--images", images, "--run", tmp_path / "new")
    assert outcome.code == 2 and "3.jpg" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_old_data_that_do_not_fit_are_refused_before_training(
    challenge: Tiny, trained: Path, leaves: Path, tmp_path: Path
) -> None:
    assert not prepare(challenge.root, tmp_path / "store", resplit=1).problems
    with pytest.raises(UserError, match="another division"):
        add(trained, leaves, tmp_path / "new", data=str(tmp_path / "store"))
    assert not (tmp_path / "new").exists()


def test_folders_that_are_there_are_left_alone(trained: Path, leaves: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="--run: expected a new folder"):
        add(trained, leaves, tmp_path)
    with pytest.raises(UserError, match="--run: expected a new folder"):
        drop_domain(trained, "dtd", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_only_finished_runs_are_extended_and_cut(challenge: Tiny, leaves: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with pytest.raises(Interrupted):
        train_tiny(challenge.store, source, stop=after(2, kill=False))
    with pytest.raises(UserError, match="finished run"):
        add(source, leaves, tmp_path / "new")
    with pytest.raises(UserError, match="finished run"):
        drop_domain(source, "dtd", tmp_path / "new")
    with pytest.raises(UserError, match=r"config\.toml"):
        drop_domain(tmp_path, "dtd", tmp_path / "new")


def test_the_last_domain_and_an_unknown_one_cannot_be_dropped(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="svhn"):
        drop_domain(trained, "svnh", tmp_path / "new")
    drop_domain(trained, "dtd", tmp_path / "two")
    drop_domain(tmp_path / "two", "svhn", tmp_path / "one")
    with pytest.raises(UserError, match="the only one"):
        drop_domain(tmp_path / "one", "daimlerpedcls", tmp_path / "none")


def test_another_addition_is_not_gone_on_with(trained: Path, leaves: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    add(trained, leaves, new)
    with pytest.raises(UserError, match=r"--resume: expected a run that adds others"):
        add(trained, leaves, new, name="others", resume=True)
    with pytest.raises(UserError, match=r"`optimizer\.lr`"):
        add(trained, leaves, new, "optimizer.lr=0.5", resume=True)
