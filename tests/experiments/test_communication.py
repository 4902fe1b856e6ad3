"""The communication of a data-parallel step: counted, against the network's own sizes, and as the documentation has it."""

from pathlib import Path

import pytest
import torch

from decathlon.building import build_network
from decathlon.config import load_config
from decathlon.specs import official_domains
from experiments.train.communication import Traffic, counted, page
from mtan_core.norm import OwnNorm, TaskNorm


def test_gradients_are_those_of_all_parameters_and_norms_speak_four_times() -> None:
    classes = {spec.name: spec.classes for spec in official_domains().values()}
    network = build_network(load_config("small", None), classes)
    own, shared = counted("small", synchronised=False), counted("small", synchronised=True)
    assert own.gradients == shared.gradients == 4 * sum(p.numel() for p in network.parameters())
    pool = sum(isinstance(module, TaskNorm) for module in network.modules())
    ladder = sum(isinstance(module, OwnNorm) for module in network.modules()) // len(classes)  # of all domains together
    assert shared.small - own.small == 4 * (pool + ladder) - 1  # without synchronisation statistics are averaged


def test_cost_grows_with_the_workers() -> None:
    traffic = Traffic(gradients=1_000_000, small=10, small_bytes=1000)
    assert traffic.sent(2) == 1_000_000 and traffic.sent(512) == pytest.approx(2_000_000, rel=0.01)
    seconds = [traffic.seconds(workers) for workers in (2, 8, 64, 512)]
    assert seconds == sorted(seconds)


def test_the_documented_tables_are_these() -> None:
    torch.manual_seed(0)
    text = (Path(__file__).parents[2] / "docs" / "data-parallel.md").read_text()
    assert page() in text
