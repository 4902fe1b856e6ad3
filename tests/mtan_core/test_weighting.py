"""Loss weightings against their formulas, and properties that all of them share."""

import json
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from mtan_core.weighting import DynamicWeightAverage, Equal, Fixed, Uncertainty, Weighting, make_weighting

TASKS = ("digits", "flowers", "signs")
KINDS = ("equal", "fixed", "uncertainty", "dwa")
LOSSES = st.floats(0, 1e30)


def weighting(kind: str, tasks: Sequence[str] = TASKS) -> Weighting:
    return make_weighting(kind, tasks, temperature=2.0, weights={"digits": 0.25, "signs": 4.0})


def losses(values: Sequence[float]) -> dict[str, torch.Tensor]:
    return {
        task: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for task, value in zip(TASKS, values, strict=False)
    }


def test_names_make_the_weightings() -> None:
    kinds = [type(weighting(kind)) for kind in KINDS]
    assert kinds == [Equal, Fixed, Uncertainty, DynamicWeightAverage]


def test_fixed_weights_are_those_given_and_1_for_the_others() -> None:
    assert weighting("fixed").weights() == {"digits": 0.25, "flowers": 1.0, "signs": 4.0}
    assert weighting("fixed").combine(losses([1.0, 2.0, 3.0])).item() == pytest.approx(0.25 + 2 + 12)


@pytest.mark.parametrize(("kendall", "factor"), [(False, 0.5), (True, 1.0)])
def test_uncertainty_is_kendalls_formula(kendall: bool, factor: float) -> None:
    made = Uncertainty(TASKS, kendall).double()
    logs = [0.3, -0.7, 1.2]
    for parameter, value in zip(made.log_variances, logs, strict=True):
        parameter.data.fill_(value)
    raw = losses([1.5, 0.2, 4.0])
    total = made.combine(raw)
    total.backward()
    expected = sum(math.exp(-s) * x.item() * factor + s / 2 for s, x in zip(logs, raw.values(), strict=True))
    assert total.item() == pytest.approx(expected, rel=1e-12)
    for s, parameter, (task, loss) in zip(logs, made.log_variances, raw.items(), strict=True):
        assert parameter.grad is not None and loss.grad is not None
        assert parameter.grad.item() == pytest.approx(-math.exp(-s) * loss.item() * factor + 0.5, rel=1e-12)
        assert loss.grad.item() == pytest.approx(made.weights()[task], rel=1e-12)


def test_uncertainty_starts_where_the_authors_start_and_may_turn_negative() -> None:
    made = Uncertainty(TASKS)
    assert [s.item() for s in made.log_variances] == [-0.5] * 3
    assert made.combine(losses([0.0, 0.0, 0.0])).item() == pytest.approx(-0.75)


def test_uncertainty_learns_only_from_the_tasks_of_the_step() -> None:
    made = Uncertainty(TASKS)
    made.combine(losses([1.0])).backward()
    assert [s.grad is not None for s in made.log_variances] == [True, False, False]


def test_dwa_is_the_papers_formula() -> None:
    made = DynamicWeightAverage(TASKS, temperature=1.5)
    epochs = [(9.0, 9.0, 9.0), (2.0, 1.0, 4.0), (1.0, 0.9, 4.4)]
    for values in epochs:
        made.end_epoch(dict(zip(TASKS, values, strict=True)))
    powers = [math.exp(now / before / 1.5) for before, now in zip(epochs[1], epochs[2], strict=True)]
    for weight, power in zip(made.weights().values(), powers, strict=True):
        assert weight == pytest.approx(3 * power / sum(powers), rel=1e-12)


def test_the_first_two_epochs_of_dwa_are_equal() -> None:
    made = DynamicWeightAverage(TASKS)
    assert made.weights() == pytest.approx(dict.fromkeys(TASKS, 1.0))
    made.end_epoch({"digits": 3.0, "flowers": 0.1, "signs": 7.0})
    assert made.weights() == pytest.approx(dict.fromkeys(TASKS, 1.0))
    made.end_epoch({"digits": 1.0, "flowers": 0.1, "signs": 7.0})
    assert made.weights()["digits"] < 1 < made.weights()["signs"]


def test_a_task_that_was_not_drawn_keeps_its_history() -> None:
    made = DynamicWeightAverage(TASKS)
    made.end_epoch({"digits": 4.0, "flowers": 1.0})
    made.end_epoch({"digits": 2.0, "flowers": 1.0})
    made.end_epoch({"flowers": 1.0, "signs": 1.0})
    assert made.history == {"digits": [4.0, 2.0], "flowers": [1.0, 1.0], "signs": [1.0]}


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        DynamicWeightAverage(TASKS, temperature)


@pytest.mark.parametrize("kind", KINDS)
@given(epochs=st.lists(st.tuples(LOSSES, LOSSES, LOSSES), max_size=4))
def test_weights_stay_finite_for_zero_tiny_and_huge_losses(kind: str, epochs: list[tuple[float, ...]]) -> None:
    made = weighting(kind)
    for values in epochs:
        made.end_epoch(dict(zip(TASKS, values, strict=True)))
        assert torch.isfinite(made.combine(losses(values)))
    weights = made.weights()
    assert list(weights) == list(TASKS)
    assert all(math.isfinite(weight) and weight >= 0 for weight in weights.values())


@given(epochs=st.lists(st.tuples(LOSSES, LOSSES, LOSSES), max_size=4), temperature=st.floats(0.1, 100))
def test_dwa_weights_sum_to_the_number_of_tasks(epochs: list[tuple[float, ...]], temperature: float) -> None:
    made = DynamicWeightAverage(TASKS, temperature)
    for values in epochs:
        made.end_epoch(dict(zip(TASKS, values, strict=True)))
    assert sum(made.weights().values()) == pytest.approx(3)


@pytest.mark.parametrize("kind", KINDS)
@given(order=st.permutations(TASKS), epochs=st.lists(st.tuples(*[st.floats(0.01, 10)] * 3), max_size=3))
def test_the_order_of_tasks_does_not_matter(kind: str, order: list[str], epochs: list[tuple[float, ...]]) -> None:
    straight, permuted = weighting(kind), weighting(kind, order)
    for values in epochs:
        means = dict(zip(TASKS, values, strict=True))
        straight.end_epoch(means)
        permuted.end_epoch(means)
        assert_close(
            straight.combine(losses(values)), permuted.combine({t: torch.tensor(means[t]).double() for t in order})
        )
    assert straight.weights() == pytest.approx({task: permuted.weights()[task] for task in TASKS})


@pytest.mark.parametrize("kind", KINDS)
def test_combining_differentiates_to_the_weights(kind: str) -> None:
    made = weighting(kind)
    made.end_epoch({"digits": 2.0, "flowers": 1.0, "signs": 3.0})
    made.end_epoch({"digits": 1.0, "flowers": 1.0, "signs": 3.0})
    raw = losses([0.5, 1.5, 2.5])
    made.combine(raw).backward()
    gradients = {task: loss.grad.item() for task, loss in raw.items() if loss.grad is not None}
    assert gradients == pytest.approx(made.weights())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_remembered_survives_json(kind: str) -> None:
    before, after = weighting(kind), weighting(kind)
    for mean in (1 / 3, 0.1, 0.7):
        before.end_epoch({"digits": mean, "flowers": 1.0})
    after.recall(json.loads(json.dumps(before.memory())))
    assert after.weights() == before.weights()
    for made in (before, after):
        made.end_epoch({"digits": 0.3, "signs": 0.2})
    assert after.weights() == before.weights()
