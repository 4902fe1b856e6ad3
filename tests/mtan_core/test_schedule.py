"""Learning rates over a phase."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtan_core.schedule import Schedule


def test_constant_stays() -> None:
    assert {Schedule("constant").factor(step, 10, 5) for step in range(50)} == {1.0}


def test_steps_come_after_whole_epochs() -> None:
    schedule = Schedule("step", step_epochs=2, step_factor=0.5)
    factors = [schedule.factor(step, 10, 6) for step in range(60)]
    assert factors == [1.0] * 20 + [0.5] * 20 + [0.25] * 20


def test_cosine_goes_from_one_to_almost_zero() -> None:
    factors = [Schedule("cosine").factor(step, 10, 4) for step in range(40)]
    for step, factor in enumerate(factors):
        assert factor == pytest.approx((1 + math.cos(math.pi * step / 40)) / 2)
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1 and 0 < factors[-1] < 0.01


@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
def test_warm_up_rises_in_equal_steps(kind: str) -> None:
    schedule = Schedule(kind, warmup=2)  # type: ignore[arg-type]
    factors = [schedule.factor(step, 5, 10) for step in range(11)]
    assert factors == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert schedule.factor(12, 5, 10) <= 1.0


@given(
    kind=st.sampled_from(["constant", "step", "cosine"]),
    warmup=st.floats(0, 20),
    steps=st.integers(1, 30),
    epochs=st.integers(1, 10),
)
def test_factors_stay_between_zero_and_one(kind: str, warmup: float, steps: int, epochs: int) -> None:
    schedule = Schedule(kind, warmup)  # type: ignore[arg-type]
    assert all(0 <= schedule.factor(step, steps, epochs) <= 1 for step in range(steps * epochs))
