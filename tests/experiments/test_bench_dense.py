"""The dense benchmark: its plain network is the authors', both sides learn, and what it prints adds up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.bench.dense import SIDES, TASKS, Work, measure_dense, print_dense, step_flops
from experiments.bench.plain_dense import PlainSegNetMtan, plain_loop
from mtan_core.errors import UserError

FILTERS = (2, 3, 4, 5, 5)


@pytest.mark.shared
def test_plain_network_is_the_authors(shared: Path) -> None:
    golden = np.load(shared / "golden" / "segnet_a_mtan.npz")
    network = PlainSegNetMtan((13, 1, 3), (4, 8, 8, 12, 12)).eval()
    network.load_state_dict(torch.load(shared / "golden" / "segnet_a_mtan.pth", weights_only=True))
    with torch.no_grad():
        semantic, depth, normal = network(torch.from_numpy(golden["x"]))
    np.testing.assert_allclose(semantic.log_softmax(1).numpy(), golden["y0"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(depth.numpy(), golden["y1"], rtol=0, atol=1e-5)
    np.testing.assert_allclose((normal / normal.norm(dim=1, keepdim=True)).numpy(), golden["y2"], rtol=0, atol=1e-5)


def test_plain_network_has_the_papers_size() -> None:
    with torch.device("meta"):
        network = PlainSegNetMtan()
    assert sum(parameter.numel() for parameter in network.parameters()) == 44_229_076


def test_plain_loop_learns() -> None:
    torch.manual_seed(0)
    network, work = PlainSegNetMtan(tuple(TASKS.values()), FILTERS), Work(height=32, width=64)
    images, losses = work.images(), work.losses()
    step = plain_loop(network, images, losses, torch.optim.Adam(network.parameters(), 0.01))

    def total() -> float:
        with torch.no_grad():
            return sum(loss(output).item() for loss, output in zip(losses, network(images), strict=True))

    before = total()
    assert [step() for _ in range(5)] == [2] * 5
    assert total() < before


def test_counted_operations() -> None:
    """Of 288x384 pixels: counted by hand for the finest of the shared convolutions, which dominate."""
    assert step_flops(64, 96) / step_flops(32, 96) == pytest.approx(2)
    assert 1.2e12 < step_flops(288, 384) < 1.4e12


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"height": 40}, "--height.*40"), ({"batch": 1}, "--batch.*1"), ({"clock": "sun"}, "--clock.*sun")],
)
def test_wrong_options_are_told(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        measure_dense(Work(**wrong), 1, 0.0)


@pytest.mark.slow
def test_all_sides_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    document = measure_dense(Work(height=32, width=32, threads=1), 1, 0.0)
    assert list(document["sides"]) == list(SIDES)
    for row in document["sides"].values():
        assert row["time_share"] * row["images_per_second"] == pytest.approx(
            document["sides"]["plain"]["images_per_second"]
        )
        assert row["gflops"] == pytest.approx(row["images_per_second"] * document["gflop_per_image"])
        assert 0.1 < row["peak_memory_gb"] < 10
    print_dense(document)
    assert "joint bf16" in capsys.readouterr().out
    json.dumps(document)


def test_sides_make_the_same_step() -> None:
    """The joint step of a network with the plain one's weights gives its losses."""
    from dense_tasks.import_weights import imported

    torch.manual_seed(0)
    plain, work = PlainSegNetMtan(tuple(TASKS.values()), FILTERS).double().train(), Work(height=32, width=64)
    joint = imported(plain.state_dict(), "plain").network.double().train()
    images = work.images().double()
    for ours, theirs in zip(joint(images).values(), plain(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
