"""Who learns when, and from which examples."""

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtan_core.sampling import Sampler, Sampling, keyed_generator

SIZES = {"digits": 100, "flowers": 37, "signs": 400}
TASKS = tuple(SIZES)
KINDS: list[Sampling] = list(get_args(Sampling))


def test_joint_draws_every_task_at_every_step() -> None:
    sampler = Sampler("joint", SIZES, 16)
    assert sampler.epoch(3, TASKS) == [TASKS] * 12  # ceil(537 / 48)
    assert sampler.epoch(0, ("flowers", "signs")) == [("flowers", "signs")] * 14  # ceil(437 / 32)


def test_sequential_passes_over_one_task_after_the_other() -> None:
    draws = Sampler("sequential", SIZES, 16).epoch(0, TASKS)
    assert draws == [("digits",)] * 6 + [("flowers",)] * 2 + [("signs",)] * 25


def test_round_robin_takes_turns_from_one_epoch_to_the_next() -> None:
    sampler = Sampler("round_robin", SIZES, 16, steps_per_epoch=7)
    assert [task for (task,) in sampler.epoch(3, TASKS)] == ["digits", "flowers", "signs"] * 2 + ["digits"]
    short = Sampler("round_robin", SIZES, 16, steps_per_epoch=2)
    assert [task for epoch in range(3) for (task,) in short.epoch(epoch, TASKS)] == ["digits", "flowers", "signs"] * 2


def test_a_temperature_near_zero_leaves_the_largest_task() -> None:
    sampler = Sampler("temperature", SIZES, 16, temperature=0.002, steps_per_epoch=20)
    assert sampler.epoch(0, TASKS) == [("signs",)] * 20


@pytest.mark.parametrize(("kind", "exponent"), [("proportional", 1.0), ("temperature", 0.25)])
def test_shares_follow_the_sizes(kind: Sampling, exponent: float) -> None:
    """Pearson's chi-square with 2 degrees of freedom stays under 13.8 (p = 0.001)."""
    steps = 20_000
    draws = Sampler(kind, SIZES, 16, seed=3, temperature=4.0, steps_per_epoch=steps).epoch(0, TASKS)
    counts = Counter(task for (task,) in draws)
    powers = np.array([size**exponent for size in SIZES.values()])
    expected = steps * powers / powers.sum()
    found = np.array([counts[task] for task in TASKS])
    assert ((found - expected) ** 2 / expected).sum() < 13.8


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_a_function_of_seed_and_epoch(kind: Sampling) -> None:
    def draws(seed: int, epoch: int) -> list[tuple[str, ...]]:
        return Sampler(kind, SIZES, 16, seed).epoch(epoch, TASKS)

    assert draws(1, 4) == draws(1, 4)
    random = kind in ("proportional", "temperature")
    later = 4 + len(TASKS)  # so many epochs later turns are the same again
    assert (draws(1, 4) != draws(1, later)) == random
    assert (draws(1, 4) != draws(2, 4)) == random


@pytest.mark.parametrize("kind", KINDS)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=4), batch=st.integers(2, 50))
def test_an_epoch_is_as_long_as_it_says(kind: Sampling, sizes: list[int], batch: int) -> None:
    named = {f"task{i}": size for i, size in enumerate(sizes)}
    sampler = Sampler(kind, named, batch)
    draws = sampler.epoch(0, tuple(named))
    assert len(draws) == sampler.epoch_length(tuple(named)) >= 1


@pytest.mark.parametrize("kind", ["joint", "proportional", "temperature", "round_robin"])
def test_a_default_epoch_sees_as_many_images_as_there_are(kind: Sampling) -> None:
    sampler = Sampler(kind, SIZES, 16)
    seen = sum(min(16, SIZES[task]) for tasks in sampler.epoch(0, TASKS) for task in tasks)
    assert 537 <= seen < 537 + (48 if kind == "joint" else 16)
    assert Sampler(kind, SIZES, 16, steps_per_epoch=5).epoch_length(TASKS) == 5


@given(size=st.integers(1, 200), batch=st.integers(2, 64), seed=st.integers(0, 2**63 - 1))
def test_a_batch_never_wraps_nor_repeats_an_example(size: int, batch: int, seed: int) -> None:
    sampler = Sampler("joint", {"digits": size}, batch, seed)
    passes = sampler.batches_per_pass("digits")
    for drawn in range(2 * passes):
        places = sampler.examples("digits", drawn)
        assert len(places) == min(batch, size) == len(set(places.tolist()))
        assert places.min() >= 0 and places.max() < size
    whole = np.concatenate([sampler.examples("digits", drawn) for drawn in range(passes)])
    assert len(set(whole.tolist())) == len(whole)
    assert size - len(whole) < batch


def test_every_example_is_seen_equally_often_over_whole_passes() -> None:
    sampler = Sampler("joint", {"digits": 60}, 12)
    counts = Counter(int(place) for drawn in range(5 * 7) for place in sampler.examples("digits", drawn))
    assert counts == dict.fromkeys(range(60), 7)


def test_what_a_pass_leaves_over_has_its_turn_in_others() -> None:
    sampler = Sampler("joint", {"digits": 23}, 10)
    counts = Counter(int(place) for drawn in range(2 * 1000) for place in sampler.examples("digits", drawn))
    assert min(counts.values()) > 0.9 * 2 * 1000 * 10 / 23


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_examples_do_not_depend_on_what_was_drawn_before(order: str) -> None:
    numbers = list(range(20))
    sampler = Sampler("joint", SIZES, 16, seed=5)
    drawn = {n: sampler.examples("digits", n).copy() for n in (numbers if order == "forward" else reversed(numbers))}
    for number in numbers:
        np.testing.assert_array_equal(drawn[number], Sampler("joint", SIZES, 16, seed=5).examples("digits", number))


def test_shuffles_differ_between_passes_tasks_and_seeds() -> None:
    first = Sampler("joint", {"a": 50, "b": 50}, 50).examples("a", 0).tolist()
    others = [
        Sampler("joint", {"a": 50, "b": 50}, 50).examples("a", 1).tolist(),
        Sampler("joint", {"a": 50, "b": 50}, 50).examples("b", 0).tolist(),
        Sampler("joint", {"a": 50, "b": 50}, 50, seed=1).examples("a", 0).tolist(),
    ]
    assert all(sorted(other) == sorted(first) and other != first for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_a_domain_smaller_than_a_batch_is_seen_whole(kind: Sampling) -> None:
    sampler = Sampler(kind, {"small": 3, "large": 40}, 16)
    assert sorted(sampler.examples("small", 7).tolist()) == [0, 1, 2]
    assert sampler.batches_per_pass("small") == 1
    assert len(sampler.epoch(0, ("small", "large"))) >= 1


def test_an_empty_task_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="signs"):
        Sampler("joint", {"digits": 3, "signs": 0}, 2)
    with pytest.raises(ValueError, match="any"):
        Sampler("joint", {}, 2)


def test_keyed_generators_are_independent_of_each_other() -> None:
    draws = {
        key: keyed_generator(*key).integers(2**62)  # type: ignore[arg-type]
        for key in [(0, "a"), (0, "b"), (1, "a"), (0, "a", 1), (0, "a", 2), (0, "a", "b", 1)]
    }
    assert len(set(draws.values())) == len(draws)
    assert keyed_generator(0, "a").integers(2**62) == draws[0, "a"]
