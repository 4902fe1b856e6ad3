"""Weight averaging."""

from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from mtan_core.averaging import WeightAverage
from mtan_core.errors import UserError
from mtan_core.network import owner_of
from mtan_core.norm import SHARED
from tests.mtan_core.tiny import tiny_network


def shake(network: torch.nn.Module, seed: int) -> None:
    """Give every parameter and buffer new values."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        value.copy_(torch.randn(value.shape, dtype=value.dtype, generator=generator))


def test_it_is_the_moving_average_of_values_that_the_drawn_tasks_reach() -> None:
    network = tiny_network()
    average = WeightAverage(network, 0.9)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = [["digits"], ["digits", "signs"], ["flowers"]] * 4
    moved: Counter[str] = Counter()  # how often what each task owns has moved
    for number, tasks in enumerate(drawn, start=1):
        moved.update([SHARED, *tasks])
        shake(network, number)
        average.update(tasks)
        for name, value in network.state_dict().items():
            own = moved[owner_of(name)]
            decay = min(0.9, (1 + own) / (10 + own))
            if owner_of(name) in {SHARED, *tasks}:
                expected[name] = decay * expected[name] + (1 - decay) * value
    assert average.steps == dict(moved)
    for name, value in expected.items():
        assert_close(average.values[name], value, rtol=0, atol=1e-12)


def test_swapping_twice_changes_nothing() -> None:
    network = tiny_network()
    average = WeightAverage(network, 0.9)
    shake(network, 1)
    live = {name: value.clone() for name, value in network.state_dict().items()}
    kept = {name: value.clone() for name, value in average.values.items()}
    average.swap()
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, live[name]) for name, value in average.values.items())
    average.swap()
    assert all(torch.equal(value, live[name]) for name, value in network.state_dict().items())


def test_it_goes_on_from_what_was_saved() -> None:
    network = tiny_network()
    average = WeightAverage(network, 0.9)
    for number in range(3):
        shake(network, number)
        average.update(["digits"])
    saved = {name: value.clone() for name, value in average.values.items()}
    other = WeightAverage(tiny_network(), 0.9)
    other.load(saved, average.steps, "here")
    other.network = network
    shake(network, 9)
    average.update(["signs"])
    other.update(["signs"])
    assert other.steps == average.steps
    assert all(torch.equal(value, other.values[name]) for name, value in average.values.items())


def test_nothing_of_it_hangs_on_the_network() -> None:
    network = tiny_network()
    average = WeightAverage(network, 0.9)
    before = {name: value.clone() for name, value in average.values.items()}
    shake(network, 1)
    assert all(torch.equal(value, before[name]) for name, value in average.values.items())
    assert not any(value.requires_grad for value in average.values.values())


def test_values_of_another_network_are_refused() -> None:
    average = WeightAverage(tiny_network(), 0.9)
    values = dict(average.values)
    name = next(iter(values))
    values[name] = torch.zeros(7)
    with pytest.raises(UserError, match="mis-shaped"):
        average.load(values, average.steps, "here")
