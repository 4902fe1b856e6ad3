"""Every method keeps the same contract: trained, resumed, evaluated and submitted by the same code."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from decathlon.building import build_network, method_counts, multiple
from decathlon.config import RunConfig, load_config
from decathlon.runs import RunFolder, load_run
from decathlon.teachers import distillation
from mtan_core.checkpoint import read_tensors
from mtan_core.errors import Interrupted, UserError
from mtan_core.methods import methods
from mtan_core.network import AttentionNetwork, owner_of
from mtan_core.segments import Segments
from mtan_core.step import Batch, TrainingStep
from mtan_core.transfer import take_pool
from mtan_core.weightings.equal import Equal
from tests.conftest import Mtan, document
from tests.decathlon.conftest import DOMAINS, Tiny, train_tiny

NAMES = tuple(methods())
PUBLISHED = {name: method.published_multiple for name, method in methods().items() if method.published_multiple}
CLASSES = {"digits": 5, "flowers": 3, "signs": 4}


@pytest.fixture(scope="module")
def pretrained(challenge: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one domain, whose pool the methods begin with."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    train_tiny(challenge.store, run, "domains=dtd", "method=hard-sharing")
    return run


@pytest.fixture(scope="module")
def teachers(challenge: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of each domain's own, in one run."""
    run = tmp_path_factory.mktemp("teachers") / "run"
    train_tiny(challenge.store, run, "method=scratch")
    return run


def changes(name: str, pretrained: Path, teachers: Path) -> list[str]:
    method = methods()[name]
    upon = {"pool_from": pretrained} if method.pretrained else {}
    upon |= {"distillation.teachers": teachers} if method.distilled else {}
    return [f"method={name}", *(f"{key}={run}" for key, run in upon.items())]


def config_of(name: str, *more: str) -> RunConfig:
    words = [
        f"method={name}",
        "pool_from=any",
        "distillation.teachers=any",
        "network.depth=10",
        "network.width=1",
        *more,
    ]
    return load_config("wrn28-4", None, words)


def network_of(name: str, *more: str) -> AttentionNetwork:
    """In float64, with every parameter moved off its beginning (adapters begin as the identity, which hides mistakes)."""
    network = build_network(config_of(name, *more), CLASSES).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return network


def images(size: int = 3, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {task: torch.randn(size, 3, 16, 16, dtype=torch.float64, generator=generator) for task in CLASSES}


@pytest.mark.parametrize("name", NAMES)
def test_trained_resumed_evaluated_and_submitted_like_any_other(
    mtan: Mtan, challenge: Tiny, pretrained: Path, teachers: Path, name: str, tmp_path: Path
) -> None:
    """Stopped after its third step and gone on with, the run ends as the unbroken one, bit for bit."""
    words = changes(name, pretrained, teachers)
    train_tiny(challenge.store, tmp_path / "whole", *words)
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        train_tiny(challenge.store, tmp_path / "broken", *words, stop=lambda: next(asked))
    train_tiny(challenge.store, tmp_path / "broken", *words, resume=True)
    whole, broken = (
        read_tensors(RunFolder(tmp_path / run).checkpoint("last"), "weights") for run in ("whole", "broken")
    )
    assert whole.keys() == broken.keys()
    assert all(torch.equal(value, broken[key]) for key, value in whole.items())
    evaluated = document(mtan("decathlon", "evaluate", tmp_path / "whole", "--data", challenge.store, "--json"))
    assert set(evaluated["domains"]) == set(DOMAINS)
    results = tmp_path / "results.json"
    written = mtan("decathlon", "submit", tmp_path / "whole", "--data", challenge.store, "--out", results)
    assert written.code == 0 and len(json.loads(results.read_text())) == 10 * len(DOMAINS)


@pytest.mark.parametrize("name", [name for name in NAMES if methods()[name].frozen])
def test_a_pool_that_stands_still_stays_as_it_was_taken(
    challenge: Tiny, pretrained: Path, teachers: Path, name: str, tmp_path: Path
) -> None:
    train_tiny(challenge.store, tmp_path / "run", *changes(name, pretrained, teachers), "ema=0")
    weights = read_tensors(RunFolder(tmp_path / "run").checkpoint("last"), "weights")
    before = read_tensors(RunFolder(pretrained).checkpoint("last"), "weights")
    shared = [key for key in weights if key.startswith("pool.") and owner_of(key) == "shared"]
    assert shared and all(torch.equal(weights[key], before[key]) for key in shared)
    own_norms = [key for key in weights if ".affine.svhn." in key]
    moved = [key for key in own_norms if not torch.equal(weights[key], before[key.replace("svhn", "dtd")])]
    assert bool(moved) == methods()[name].own_norms


@pytest.mark.parametrize("name", NAMES)
def test_the_joint_step_equals_the_plain_loop(name: str) -> None:
    joint, loop = network_of(name), network_of(name)
    together = joint.joint(images())
    torch.stack([logits.square().sum() for logits in together.values()]).sum().backward()
    for task, batch in images().items():
        logits = loop(batch, task)
        assert_close(together[task], logits, rtol=0, atol=1e-10)
        logits.square().sum().backward()
    for (key, a), (_, b) in zip(joint.named_parameters(), loop.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, key
        scale = max(1.0, float(b.grad.abs().max()))
        assert_close(a.grad / scale, b.grad / scale, rtol=0, atol=1e-10)
    for (_, a), (_, b) in zip(joint.named_buffers(), loop.named_buffers(), strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_one_domain_moves_only_shared_and_its_own(name: str) -> None:
    network = network_of(name)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    step = TrainingStep(network, Equal(list(CLASSES)), optimizer)
    labels = torch.tensor([0, 1, 2])
    step({task: Batch(batch, labels) for task, batch in images().items()})
    before = {key: value.clone() for key, value in network.state_dict().items()}
    step({"flowers": Batch(images(seed=1)["flowers"], labels)})
    moved = {owner_of(key) for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert "flowers" in moved and moved <= {"flowers", "shared"}


@pytest.mark.parametrize("name", NAMES)
def test_a_new_domain_changes_no_other_domains_answers(name: str) -> None:
    network = network_of(name).eval()
    batch = images()["digits"]
    before = network(batch, "digits")
    network.add_task("leaves", 7)
    network.double().eval()
    assert torch.equal(network(batch, "digits"), before)
    assert network(batch, "leaves").shape == (3, 7)


@pytest.mark.parametrize("name", [name for name in NAMES if methods()[name].pretrained])
def test_every_domain_begins_with_the_pool_it_was_given(name: str) -> None:
    """Before a step is made, features are those of the source, whatever the method adds."""
    source = network_of("hard-sharing").eval()
    network = build_network(config_of(name), CLASSES).double().eval()
    take_pool(network, source.state_dict(), "source")
    batch = images()["digits"]
    for task in CLASSES:
        segments = Segments((task,), (len(batch),))
        features = [net.pool(batch, segments)[-1].features for net in (network, source)]
        assert_close(features[0], features[1], rtol=0, atol=1e-10)


def test_a_domain_that_the_pool_does_not_know_begins_with_the_mean_of_its_batch_norms() -> None:
    source = network_of("hard-sharing")
    network = build_network(config_of("bn"), {"digits": 5, "leaves": 7}).double()
    take_pool(network, source.state_dict(), "source")
    theirs, ours = source.pool.last_norm.affine, network.pool.last_norm.affine
    assert_close(ours["leaves"].weight, torch.stack([theirs[task].weight for task in CLASSES]).mean(0))
    assert torch.equal(ours["digits"].weight, theirs["digits"].weight)


def test_adapters_of_low_rank_are_cut_from_learnt_ones() -> None:
    """The best approximation of its rank: the error is the singular values that were left out (Eckart, Young 1936)."""
    source = network_of("parallel")
    network = build_network(config_of("parallel-svd"), CLASSES).double()
    take_pool(network, source.state_dict(), "source")
    conv, learnt = network.pool.groups[2][0].conv2, source.pool.groups[2][0].conv2.own["flowers"].weight.flatten(1)
    own = conv.own["flowers"]
    cut = own["up"].weight.flatten(1) @ own["down"].weight.flatten(1)
    values = torch.linalg.svdvals(learnt)
    assert 0 < conv.rank < len(values)
    assert_close((cut - learnt).norm(), values[conv.rank :].norm())


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_are_counted_as_in_the_papers(name: str, published: float) -> None:
    """Parallel adapters on the ResNet-26 of their paper; earlier methods on 28 layers of 64, 128 and 256 channels."""
    within = 0.02 if name == "mtan" else 0.1
    if "parallel" in name:
        classes = {f"domain{number}": 10 for number in range(10)}
        with torch.device("meta"):
            network = build_network(config_of(name, "pool=resnet26", "network.init=torch"), classes)
        assert multiple(network) == pytest.approx(published, abs=within)
    else:
        assert method_counts()[name]["multiple"] == pytest.approx(published, abs=within)


def test_methods_are_listed(mtan: Mtan) -> None:
    counts = document(mtan("decathlon", "methods", "--json"))
    assert set(counts) == set(NAMES)
    assert (counts["mtan"]["parameters"], counts["mtan"]["pool_parameters"]) == (10_237_656, 5_850_528)
    assert {count["pool_parameters"] for count in counts.values()} == {5_850_528}
    table = mtan("decathlon", "methods")
    assert table.code == 0 and all(name in table.out for name in NAMES)


def test_a_pool_of_another_shape_is_refused_before_anything_is_written(
    mtan: Mtan, challenge: Tiny, pretrained: Path, tmp_path: Path
) -> None:
    words = changes("parallel", pretrained, pretrained)
    with pytest.raises(
        UserError, match=r"pool_from.*expected a pool like the new one, with pool.groups.0.0.conv1.weight"
    ):
        train_tiny(challenge.store, tmp_path / "run", *words, "network.width=2")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="found none"):
        train_tiny(challenge.store, tmp_path / "run", *words, "network.depth=16")
    shutil.copytree(pretrained, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "summary.json").unlink()
    with pytest.raises(UserError, match=r"`pool_from`: expected a finished run, found one still to be trained"):
        train_tiny(challenge.store, tmp_path / "run", *changes("parallel", tmp_path / "unfinished", pretrained))
    assert not (tmp_path / "run").exists()
    told = mtan("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "run", "--preset", "small",
                "--method", "parallel", "--pool-from", tmp_path / "nothing")  # fmt: skip
    assert told.code == 2 and "nothing" in told.err and "Traceback" not in told.err
    assert not (tmp_path / "run").exists()


def test_a_method_that_begins_with_a_pool_asks_for_one() -> None:
    with pytest.raises(
        UserError, match=r'`method = "piggyback"` begins with a trained pool: name its run by `pool_from`'
    ):
        load_config("small", None, ["method=piggyback"])
    with pytest.raises(UserError, match=r'needs norm = "domain", found "shared"'):
        load_config("small", None, ["method=scratch", "norm=shared"])


def test_teachers_that_cannot_teach_are_refused_before_anything_is_written(
    challenge: Tiny, teachers: Path, pretrained: Path, tmp_path: Path
) -> None:
    def told(*words: str) -> str:
        with pytest.raises(UserError) as refused:
            train_tiny(challenge.store, tmp_path / "run", *words)
        assert not (tmp_path / "run").exists()
        return str(refused.value)

    assert "learns from teachers: name their runs by `distillation.teachers`" in told("method=universal")
    words = ["method=universal", f"distillation.teachers={pretrained}"]
    assert f"none of {pretrained} knows the domain" in told(*words)
    assert "`distillation.weights`: there is no domain 'svnh'" in told(*words, "distillation.weights.svnh=1")
    assert str(tmp_path / "nothing") in told("method=universal", f"distillation.teachers={tmp_path / 'nothing'}")
    shutil.copytree(teachers, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "summary.json").unlink()
    assert "still to be trained" in told("method=universal", f"distillation.teachers={tmp_path / 'unfinished'}")
    taught = ("method=universal", f"distillation.teachers={teachers}")
    assert "expected a run with `image_size` = 32, found 24" in told(*taught, "image_size=32")
    assert "expected a run with `fit.svhn` = squash, found crop" in told(*taught, "image_size=24", "fit.svhn=squash")
    shutil.copytree(teachers, tmp_path / "other")
    listed = json.loads((tmp_path / "other" / "domains.json").read_text())
    listed["domains"][0]["mean"] = [0.1, 0.2, 0.3]
    (tmp_path / "other" / "domains.json").write_text(json.dumps(listed))
    assert "has learnt another" in told("method=universal", f"distillation.teachers={tmp_path / 'other'}")


def test_each_domain_has_the_first_teacher_that_knows_it(
    challenge: Tiny, teachers: Path, pretrained: Path, tmp_path: Path
) -> None:
    """Any method may have teachers; with the terms' weights at 0 they change nothing but what is logged beside."""
    config = load_config(
        "small",
        None,
        ["method=mtan", f"distillation.teachers={pretrained},{teachers}", "network.width=1", "image_size=24"],
    )
    specs = RunFolder(teachers).specs()
    student = build_network(config, {name: spec.classes for name, spec in specs.items()})
    made = distillation(config, student, list(specs.values()), torch.device("cpu"))
    assert made is not None and set(made.align) == set(specs)
    taught = {task: network for network, tasks in made._teachers for task in tasks}
    assert taught["dtd"].tasks == ("dtd",) and set(taught["svhn"].tasks) == set(specs)
    plain, silent = ([], [f"distillation.teachers={teachers}", "distillation.features=0", "distillation.logits=0"])
    for run, words in (("plain", plain), ("silent", silent)):
        train_tiny(challenge.store, tmp_path / run, *words)
    before, after = (
        read_tensors(RunFolder(tmp_path / run).checkpoint("last"), "weights") for run in ("plain", "silent")
    )
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_without_masks_there_are_none_to_show(challenge: Tiny, pretrained: Path) -> None:
    with pytest.raises(UserError, match="attention masks"):
        load_run(pretrained).network.masks(torch.zeros(1, 3, 24, 24), "dtd")
