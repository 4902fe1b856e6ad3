"""Properties that all loss weightings share, whatever their formula."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mtan_core.weighting import GradientWeighting
from mtan_core.weightings import make_weighting, weightings
from tests.mtan_core.weighting_cases import AGGREGATORS, KINDS, TASKS, problem, random_rows, step, weighting

SEEDS = st.integers(0, 10_000)
SCALES = st.sampled_from([0.0, 1e-30, 1e-9, 1.0, 1e6, 1e12])
VALUES = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e6, 1e30])
SUMMING = ("equal", "dwa", "random", "gradnorm")
few = settings(max_examples=25, deadline=None)


def test_the_names() -> None:
    losses = ("equal", "dtp", "dwa", "fixed", "gradnorm", "random", "uncertainty")
    assert weightings()[0] == "equal" and set(weightings()) == {*losses, *AGGREGATORS}
    assert {kind for kind in KINDS if isinstance(weighting(kind), GradientWeighting)} == {*AGGREGATORS, "gradnorm"}
    assert all(weighting(kind).source for kind in KINDS if kind not in ("equal", "fixed"))


@pytest.mark.parametrize("kind", KINDS)
@few
@given(seed=SEEDS, scales=st.tuples(SCALES, SCALES, SCALES), values=st.tuples(VALUES, VALUES, VALUES))
def test_all_is_finite_for_zero_and_extreme_losses_and_gradients(
    kind: str, seed: int, scales: tuple[float, ...], values: tuple[float, ...]
) -> None:
    made = weighting(kind)
    rows = random_rows(seed)
    scaled = {task: [scale * x for x in rows[task]] for task, scale in zip(TASKS, scales, strict=True)}
    for _ in range(2):
        posed, used = step(made, scaled, dict(zip(TASKS, values, strict=True)), lr=0.1)
        assert np.isfinite(posed.shared).all()
        assert set(used) == set(TASKS) and all(math.isfinite(weight) for weight in used.values())
        assert all(torch.isfinite(p).all() for p in made.parameters())
        made.end_epoch(dict(zip(TASKS, values, strict=True)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [
    {"digits": [1.0, 2.0], "flowers": [1.0, 2.0], "signs": [1.0, 2.0]},
    {"digits": [1.0, 0.0], "flowers": [-1.0, 0.0], "signs": [0.0, 1.0]},
    {"digits": [1.0, 0.0], "flowers": [0.0, 0.0], "signs": [-2.0, 0.0]},
    {"digits": [0.0, 0.0], "flowers": [0.0, 0.0], "signs": [0.0, 0.0]},
])  # fmt: skip
def test_all_is_finite_where_gradients_depend_on_each_other(kind: str, rows: dict[str, list[float]]) -> None:
    made = weighting(kind)
    for _ in range(2):
        posed, used = step(made, rows, lr=0.1)
        assert np.isfinite(posed.shared).all() and all(math.isfinite(weight) for weight in used.values())


@pytest.mark.parametrize("kind", KINDS)
@few
@given(order=st.permutations(TASKS), seed=SEEDS, shuffled=st.permutations(TASKS))
def test_the_order_of_tasks_does_not_matter(kind: str, order: list[str], seed: int, shuffled: list[str]) -> None:
    straight, permuted = weighting(kind), weighting(kind, order)
    for number in range(3):
        rows, values = random_rows(seed + number), {task: 1.0 + 0.3 * place for place, task in enumerate(TASKS)}
        one, weights = step(straight, rows, values, lr=0.01)
        other, others = step(permuted, {task: rows[task] for task in shuffled}, values, lr=0.01)
        assert weights == pytest.approx({task: others[task] for task in TASKS}, rel=1e-9, abs=1e-12)
        assert_close(torch.tensor(one.shared), torch.tensor(other.shared), rtol=1e-9, atol=1e-12)
        for made in (straight, permuted):
            made.end_epoch({task: values[task] / (number + 1) for task in TASKS})


@pytest.mark.parametrize("kind", SUMMING)
@few
@given(seed=SEEDS, values=st.tuples(VALUES, VALUES, VALUES), lr=st.sampled_from([0.0, 0.025, 10.0]))
def test_weights_sum_to_the_number_of_tasks(kind: str, seed: int, values: tuple[float, ...], lr: float) -> None:
    made = weighting(kind)
    for number in range(4):
        step(made, random_rows(seed + number), dict(zip(TASKS, values, strict=True)), lr=lr)
        weights = made.weights()
        assert sum(weights.values()) == pytest.approx(3) and all(weight >= 0 for weight in weights.values())
        made.end_epoch(dict(zip(TASKS, values, strict=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_absent_from_a_step_are_left_alone(kind: str) -> None:
    made = weighting(kind)
    step(made, random_rows(0), lr=0.05)
    made.end_epoch(dict.fromkeys(TASKS, 1.0))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    some = {task: row for task, row in random_rows(1).items() if task != "flowers"}
    posed = problem(some)
    made.zero_grad()
    made.begin_step()
    made.backward(posed.losses, posed.parameters, posed.metrics)
    absent = f".{TASKS.index('flowers')}"
    assert all(p.grad is None for name, p in made.named_parameters() if name.endswith(absent))
    made.end_step(some)
    for name, value in made.state_dict().items():
        if value.ndim:  # one place per task
            assert_close(value[TASKS.index("flowers")], before[name][TASKS.index("flowers")])
        elif name.endswith(absent):
            assert torch.equal(value, before[name])
    if isinstance(made, GradientWeighting):
        assert made.epoch_weights()["flowers"] is None and made.epoch_weights()["digits"] is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_alone_gets_its_own_gradient(kind: str) -> None:
    made = weighting(kind, max_norm=0.0)
    posed, used = step(made, {"flowers": [3.0, 4.0]})
    assert_close(torch.tensor(posed.shared), used["flowers"] * torch.tensor([3.0, 4.0], dtype=torch.float64))
    lengths = {"dtp": -0.6 * math.log(0.4), "uncertainty": math.exp(0.5) / 2, "nash-mtl": 1 / 5, "cagrad": 1.4}
    if kind != "random":
        assert used["flowers"] == pytest.approx(lengths.get(kind, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_task_owns_gets_its_own_losss_gradient(kind: str) -> None:
    posed, used = step(weighting(kind), random_rows(3))
    for task, (y,) in posed.parameters.own.items():
        assert y.grad is not None
        assert y.grad.tolist() == pytest.approx([2 * (1.0 if kind in AGGREGATORS else used[task])] * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_shared_parameters_get_the_weighted_sum_of_the_gradients(kind: str) -> None:
    rows = random_rows(4)
    posed, used = step(weighting(kind), rows)
    assert posed.shared == pytest.approx(sum(used[task] * np.array(row) for task, row in rows.items()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_remembered_makes_the_same_steps_after_a_checkpoint(kind: str) -> None:
    before, after = weighting(kind, update_every=3), weighting(kind, update_every=3)
    for number in range(4):
        step(before, random_rows(number), {"digits": 1.0 / (number + 1)}, lr=0.03)
        if number < 2:
            before.end_epoch({"digits": 1 / 3 / (number + 1), "flowers": 1.0})
    after.load_state_dict(before.state_dict())
    after.recall(json.loads(json.dumps(before.memory())))
    for number in range(4, 8):
        one, weights = step(before, random_rows(number), lr=0.03)
        other, others = step(after, random_rows(number), lr=0.03)
        assert weights == others and np.array_equal(one.shared, other.shared)
    assert before.epoch_weights() == after.epoch_weights()
    for made in (before, after):
        made.end_epoch({"digits": 0.3, "signs": 0.2})
    assert before.weights() == after.weights()


@pytest.mark.parametrize("kind", ["random", "dtp", "gradnorm", *AGGREGATORS])
def test_the_weights_of_an_epoch_are_the_mean_of_its_steps(kind: str) -> None:
    made = weighting(kind)
    step(made, random_rows(9))
    made.end_epoch(dict.fromkeys(TASKS, 1.0))
    assert made.epoch_weights() == dict.fromkeys(TASKS)
    steps = [step(made, random_rows(number), lr=0.1)[1] for number in range(5)]
    for task, mean in made.epoch_weights().items():
        assert mean == pytest.approx(sum(weights[task] for weights in steps) / 5)


@pytest.mark.parametrize(("kind", "wrong"), [
    ("dwa", {"temperature": 0.0}), ("dwa", {"temperature": math.nan}), ("gradnorm", {"alpha": -1.0}),
    ("dtp", {"gamma": -1.0}), ("dtp", {"share": 0.0}), ("cagrad", {"c": -0.1}), ("nash-mtl", {"max_norm": -1.0}),
    ("nash-mtl", {"update_every": 0}),
])  # fmt: skip
def test_constants_out_of_range_are_refused(kind: str, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must"):
        make_weighting(kind, TASKS, **wrong)


@pytest.mark.parametrize("kind", ["gradnorm", *AGGREGATORS])
def test_losses_alone_do_not_suffice_for_what_looks_at_gradients(kind: str) -> None:
    with pytest.raises(TypeError, match="gradient of each task"):
        weighting(kind).combine(problem(random_rows(0)).losses)
