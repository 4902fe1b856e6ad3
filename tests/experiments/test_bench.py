"""The benchmarks' baselines are what they claim to be."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from decathlon.data.prepare import prepare
from decathlon.data.store import open_store
from decathlon.miniature import write_miniature
from decathlon.specs import official_domains
from experiments.bench.data import DomainBatches, measure_data
from experiments.bench.limits import ConvolutionShape, convolution_seconds, convolution_shapes, step_flops
from experiments.bench.plain import PlainMtan, plain_loop
from experiments.bench.rounds import in_process, lasting, take_turns
from experiments.bench.step import SIDES, Task, joint_side, measure_step, plain_side, print_step
from mtan_core.errors import UserError


@pytest.fixture(scope="module")
def authors_classes() -> list[int]:
    return [domain.classes for domain in sorted(official_domains().values(), key=lambda domain: domain.authors_place)]


@pytest.mark.shared
@pytest.mark.parametrize("size", [64, 72])
def test_plain_network_is_the_authors(shared: Path, size: int) -> None:
    golden = np.load(shared / "golden" / "wrn_mtan_10_1.npz")
    network = PlainMtan(golden["classes"].tolist(), int(golden["depth"]), int(golden["width"])).eval()
    network.load_state_dict(torch.load(shared / "golden" / "wrn_mtan_10_1.pth", weights_only=True))
    images = torch.from_numpy(golden[f"x{size}"])
    for k in range(10):
        with torch.no_grad():
            probabilities = network(images, k).softmax(dim=1).numpy()
        np.testing.assert_allclose(probabilities, golden[f"p{size}_{k}"], rtol=0, atol=1e-5)


def test_plain_network_has_the_published_size(authors_classes: list[int]) -> None:
    network = PlainMtan(authors_classes)
    pool = [network.conv1, network.layer1, network.layer2, network.layer3, network.bn1]
    assert sum(p.numel() for p in network.parameters()) == 10_237_656
    assert sum(p.numel() for part in pool for p in part.parameters()) == 5_850_528


def test_plain_loop_learns_every_domain_and_counts_its_images() -> None:
    torch.manual_seed(0)
    network = PlainMtan([2, 3], depth=10, width=1)
    batches = {k: (torch.randn(4, 3, 64, 64), torch.arange(4) % n) for k, n in enumerate((2, 3))}
    step = plain_loop(network, batches, torch.optim.SGD(network.parameters(), 0.1))

    def losses() -> list[float]:
        with torch.no_grad():
            return [F.cross_entropy(network(x, k), y).item() for k, (x, y) in batches.items()]

    before = losses()
    assert [step() for _ in range(8)] == [8] * 8
    assert all(late < early for early, late in zip(before, losses(), strict=True))


def test_sides_take_turns_and_the_warm_up_is_not_counted() -> None:
    asked: list[tuple[str, float]] = []

    def side(name: str, images: int) -> Callable[[float], tuple[int, float]]:
        def work(seconds: float) -> tuple[int, float]:
            asked.append((name, seconds))
            return (images, 0.5) if seconds else (10**6, 0.5)

        return work

    rates = take_turns({"a": side("a", 10), "b": side("b", 30)}, rounds=2, seconds=0.1, title="turns")
    assert asked == [("a", 0.0), ("b", 0.0), ("a", 0.1), ("b", 0.1), ("a", 0.1), ("b", 0.1)]
    assert [rates[name].median for name in "ab"] == [20.0, 60.0]
    assert rates["a"].to_dict() == {"images_per_second": 20.0, "lowest": 20.0, "highest": 20.0}


def test_a_side_works_for_as_long_as_asked() -> None:
    side = lasting(lambda: time.sleep(0.01) or 3)
    images, taken = side(0.05)
    assert taken >= 0.05
    assert 6 <= images <= 15
    assert side(0.0)[0] == 3


def test_convolutions_account_for_the_arithmetic_that_torch_counts() -> None:
    with torch.device("meta"):
        shapes = convolution_shapes(PlainMtan([100]), 72)
    head = 3 * 2 * 256 * 100
    assert sum(shape.flops(1) * count for shape, count in shapes.items()) + head == step_flops(72)
    assert shapes[ConvolutionShape(64, 64, 3, 1, 36)] == 6
    assert sum(shape.first for shape in shapes) == 1


def test_limits_are_rates_of_the_fastest_layout() -> None:
    shape = ConvolutionShape(16, 16, 3, 1, 16)
    assert 0 < convolution_seconds(shape, 2, torch.bfloat16, 0.0) < 1
    assert shape.tensors(2, torch.float32, torch.channels_last)[2].shape == (2, 16, 16, 16)


def test_both_sides_of_the_step_benchmark_learn_from_the_same_images() -> None:
    task = Task(("dtd", "svhn"), batch=2, size=64, depth=10, width=1, threads=1)
    assert {name: images.shape for name, (images, _) in task.batches().items()} == {
        "dtd": (2, 3, 64, 64),
        "svhn": (2, 3, 64, 64),
    }
    for name in task.domains:
        assert torch.equal(task.batches()[name][0], task.batches()[name][0])
    assert plain_side(task)(2)() == 4
    assert joint_side(task, "fp32")(2)() == 4
    assert joint_side(task, "bf16")(1)() == 2


def test_a_joint_step_goes_by_passes_of_whole_domains() -> None:
    assert [Task(("dtd",), batch).in_a_pass for batch in (16, 100, 128, 300)] == [16, 2, 2, 1]


def test_step_benchmark_measures_every_side_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    task = Task(("dtd", "svhn"), batch=2, size=64, depth=10, width=1, threads=1)
    document = measure_step(task, rounds=1, seconds=0, counts=[2])
    rows = document["by_domains"]["2"]
    assert list(rows) == list(SIDES)
    for row in rows.values():
        assert row["ratio"] == row["images_per_second"] / rows["plain"]["images_per_second"]
        assert row["limit_share"] > 0
    json.dumps(document, allow_nan=False)
    print_step(document)
    assert "joint bf16" in capsys.readouterr().out


def out_of_memory(side: str, task: object) -> Callable[[float], None]:
    """A side that the system kills in its first step."""
    return lambda seconds: os.kill(os.getpid(), signal.SIGKILL)


def test_a_side_that_is_killed_is_told_in_a_sentence() -> None:
    with (
        pytest.raises(UserError, match=r"^joint: expected rates .* found it killed by signal 9, .*memory.*--batch"),
        in_process(out_of_memory, "joint", None) as ask,
    ):
        ask(0.0)


def test_step_benchmark_refuses_impossible_options() -> None:
    task = Task(("dtd",), batch=1)
    with pytest.raises(UserError, match="--batch: expected at least 2, found 1"):
        measure_step(task, rounds=1, seconds=0)
    with pytest.raises(UserError, match="--clock: expected wall or cpu, found 'sun'"):
        measure_step(Task(("dtd",), 2, clock="sun"), rounds=1, seconds=0)


@pytest.fixture(scope="module")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / "root"
    write_miniature(root, domains=["daimlerpedcls", "svhn"], workers=1)
    return root


def test_data_benchmark_sees_the_same_images_on_both_sides(small_root: Path, tmp_path: Path) -> None:
    prepare(small_root, tmp_path / "store")
    store = open_store(tmp_path / "store")
    document = measure_data(str(tmp_path / "store"), small_root, batch=32, rounds=1, seconds=0)
    assert document["images"] == sum(len(store.split(name, "train")) for name in store.domains)
    assert document["domains"] == ["daimlerpedcls", "svhn"]
    assert all(side["images_per_second"] > 0 for side in document["sides"].values())
    json.dumps(document, allow_nan=False)
    with pytest.raises(UserError, match=r"expected the training images of daimlerpedcls in .*found no such folder"):
        measure_data(str(tmp_path / "store"), tmp_path, batch=32, rounds=1, seconds=0)


def test_batches_of_concatenated_sets_never_mix_them() -> None:
    batches = list(DomainBatches([5, 3], batch=2))
    assert sorted(place for places in batches for place in places) == list(range(8))
    assert [len(places) for places in batches] == [2, 2, 1, 2, 1]
    assert all(max(places) < 5 or min(places) >= 5 for places in batches)
