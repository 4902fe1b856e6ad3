"""What stands still when parts of a network are frozen, and what a newcomer alone owns learns all the same."""

from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from mtan_core.network import AttentionNetwork, owner_of
from mtan_core.norm import SHARED, NormMode
from mtan_core.reestimate import reestimate
from mtan_core.step import TrainingStep
from mtan_core.weightings.equal import Equal
from tests.mtan_core.tiny import CLASSES, tiny_batches, tiny_network

NEW = "leaves"
MODES: Sequence[NormMode] = get_args(NormMode)


def with_newcomer(norm: NormMode) -> AttentionNetwork:
    """A network that has trained for a step, and a task that was added to it."""
    network = tiny_network(norm)
    learn(network, tiny_batches())
    if norm == "shared":
        for task in CLASSES:
            reestimate(network, task, [tiny_batches(seed=4)[task].images])
    network.add_task(NEW, 5)
    network.double()
    network.start_from(NEW, list(CLASSES))
    if norm == "shared":
        network.own_statistics(NEW)
    return network


def learn(network: AttentionNetwork, batches: dict[str, object], steps: int = 1) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.5)
    step = TrainingStep(network, Equal(list(batches)), optimizer)
    for _ in range(steps):
        step(batches)  # type: ignore[arg-type]


def newcomers_batch() -> dict[str, object]:
    return {NEW: tiny_batches(seed=9)["digits"]}


def moved(network: AttentionNetwork, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("norm", MODES)
def test_a_newcomer_learns_all_that_it_owns_and_nothing_else_moves(norm: NormMode) -> None:
    """Weight decay, momentum and running statistics included; what others answer is the same to the last bit."""
    network = with_newcomer(norm)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = tiny_batches(seed=5)
    answers = {task: network.eval()(images[task].images, task) for task in CLASSES}
    network.train()
    network.freeze(["pool", "ladder"], shared_only=True)
    learn(network, newcomers_batch(), steps=3)
    assert moved(network, before) == {name for name in before if owner_of(name) == NEW}
    network.eval()
    for task, expected in answers.items():
        assert torch.equal(network(images[task].images, task), expected)


@pytest.mark.parametrize("norm", MODES)
def test_shared_statistics_of_a_frozen_part_stand_still_for_who_has_no_others(norm: NormMode) -> None:
    """Under "shared" before re-estimation: training images are normalised by their batch, no statistics move."""
    network = tiny_network(norm)
    network.train()
    network.freeze(["pool", "ladder"], shared_only=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = tiny_batches()
    logits = network.joint({task: batch.images for task, batch in batches.items()})
    unfrozen = tiny_network(norm).train().joint({task: batch.images for task, batch in batches.items()})
    for task in CLASSES:
        assert_close(logits[task], unfrozen[task], rtol=0, atol=1e-12)
    own = {name for name in before if owner_of(name) != SHARED and ".statistics." in name}
    assert moved(network, before) == own


def test_training_again_thaws_what_was_frozen() -> None:
    network = with_newcomer("shared")
    network.train()
    network.freeze(["pool", "ladder"], shared_only=True)
    network.train()
    network.freeze([])
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_newcomers_scales_begin_at_the_mean_of_the_others() -> None:
    network = with_newcomer("domain")
    norm = network.task_norms()[0]
    others = torch.stack([norm.affine[task].get_parameter("weight") for task in CLASSES])
    assert others.std() > 0
    assert_close(norm.affine[NEW].get_parameter("weight"), others.mean(0), rtol=0, atol=0)
