"""Each weighting against its paper's formula, written here anew in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from mtan_core.weightings.dwa import DynamicWeightAverage
from mtan_core.weightings.fixed import Fixed
from mtan_core.weightings.uncertainty import Uncertainty
from tests.mtan_core.weighting_cases import TASKS, Matrix, matrix, problem, random_rows, step, weighting

SEEDS = st.integers(0, 10_000)
few = settings(max_examples=20, deadline=None)


def losses(*values: float) -> dict[str, torch.Tensor]:
    return {
        task: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for task, value in zip(TASKS, values, strict=False)
    }


def test_fixed_weights_are_those_given_and_1_for_the_others() -> None:
    made = Fixed(TASKS, {"digits": 0.25, "signs": 4.0})
    assert made.weights() == {"digits": 0.25, "flowers": 1.0, "signs": 4.0}
    assert made.combine(losses(1.0, 2.0, 3.0)).item() == pytest.approx(0.25 + 2 + 12)


@pytest.mark.parametrize(("kendall", "factors"), [(False, [0.5, 0.5, 0.5]), (True, [1.0, 0.5, 1.0])])
def test_uncertainty_is_kendalls_formula(kendall: bool, factors: list[float]) -> None:
    made = Uncertainty(TASKS, kendall, classification=["digits", "signs"]).double()
    logs = [0.3, -0.7, 1.2]
    for parameter, value in zip(made.log_variances, logs, strict=True):
        parameter.data.fill_(value)
    raw = losses(1.5, 0.2, 4.0)
    total = made.combine(raw)
    total.backward()
    terms = list(zip(logs, factors, raw.items(), made.log_variances, strict=True))
    assert total.item() == pytest.approx(
        sum(math.exp(-s) * x.item() * f + s / 2 for s, f, (_, x), _ in terms), rel=1e-12
    )
    for s, factor, (task, loss), parameter in terms:
        assert parameter.grad is not None and loss.grad is not None
        assert parameter.grad.item() == pytest.approx(-math.exp(-s) * loss.item() * factor + 0.5, rel=1e-12)
        assert loss.grad.item() == pytest.approx(made.weights()[task], rel=1e-12)


def test_uncertainty_starts_where_the_authors_start_and_may_turn_negative() -> None:
    made = Uncertainty(TASKS)
    assert [s.item() for s in made.log_variances] == [-0.5] * 3
    assert made.combine(losses(0.0, 0.0, 0.0)).item() == pytest.approx(-0.75)
    assert Uncertainty(TASKS, kendall=True).factors == dict.fromkeys(TASKS, 1.0)


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


def test_dwa_keeps_the_history_of_a_task_that_was_not_drawn() -> None:
    made = DynamicWeightAverage(TASKS)
    made.end_epoch({"digits": 4.0, "flowers": 1.0})
    made.end_epoch({"digits": 2.0, "flowers": 1.0})
    made.end_epoch({"flowers": 1.0, "signs": 1.0})
    assert made.history == {"digits": [4.0, 2.0], "flowers": [1.0, 1.0], "signs": [1.0]}


def test_random_weights_are_softmaxes_of_normal_draws() -> None:
    """Of independent normal draws, differences of log-weights are normal with variance 2."""
    made, other = weighting("random"), weighting("random", seed=6)
    drawn = [step(made, random_rows(0))[1] for _ in range(400)]
    assert step(other, random_rows(0))[1] != drawn[0] != drawn[1]
    logs = np.log(np.array([list(weights.values()) for weights in drawn]))
    apart = logs[:, 0] - logs[:, 1]
    assert abs(apart.mean()) < 4 * math.sqrt(2 / 400) and apart.var() == pytest.approx(2, rel=0.3)
    assert abs(np.corrcoef(apart[1:], apart[:-1])[0, 1]) < 4 / math.sqrt(400)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_dtp_weighs_by_the_average_of_the_key_metric(gamma: float) -> None:
    made = weighting("dtp", gamma=gamma, share=0.25)
    averages: dict[str, float] = {}
    for number in range(4):
        posed = problem(random_rows(0))
        seen = {task: (0.15 * (place + 1) + 0.1 * number) for place, task in enumerate(TASKS)}
        posed.metrics = {task: torch.tensor(value, dtype=torch.float64) for task, value in seen.items()}
        averages = {t: 0.25 * k + 0.75 * averages[t] if averages else k for t, k in seen.items()}
        made.backward(posed.losses, posed.parameters, posed.metrics)
        expected = {task: -((1 - k) ** gamma) * math.log(k) for task, k in averages.items()}
        assert made.weights() == pytest.approx(expected, rel=1e-9)
        assert posed.shared == pytest.approx(np.array(list(expected.values())) @ matrix(random_rows(0)))


def test_dtp_is_bounded_where_all_is_wrong_and_0_where_all_is_right() -> None:
    made = weighting("dtp")
    metrics = {"digits": torch.tensor(0.0), "signs": torch.tensor(1.0)}
    made.combine({task: losses(1, 1, 1)[task] for task in metrics}, metrics)
    assert made.weights() == pytest.approx({"digits": -0.999 * math.log(1e-3), "flowers": 1.0, "signs": 0.0})


@given(seed=SEEDS)
@example(seed=640)  # a weight would become negative
@few
def test_gradnorm_is_algorithm_1(seed: int) -> None:
    alpha, lr, made = 0.7, 0.05, weighting("gradnorm", alpha=0.7)
    weights, first = np.ones(3), np.zeros(3)
    for number in range(4):
        rows = random_rows(seed + number)
        values = np.random.default_rng([seed, number]).uniform(0.2, 4, 3)
        first = values if number == 0 else first
        posed, used = step(made, rows, dict(zip(TASKS, values, strict=True)), lr=lr)
        assert list(used.values()) == pytest.approx(weights) and posed.shared == pytest.approx(weights @ matrix(rows))
        raw = np.linalg.norm(matrix(rows), axis=1)
        rate = (values / first) / (values / first).mean()
        slope = np.sign(weights * raw - (weights * raw).mean() * rate**alpha) * raw
        weights = (weights - lr * slope).clip(made.FLOOR)  # the paper's may become negative
        weights *= 3 / weights.sum()
        assert list(made.weights().values()) == pytest.approx(weights)


def test_gradnorm_rests_while_the_convolution_stands_still() -> None:
    made = weighting("gradnorm")
    posed = problem(random_rows(0))
    (x,) = posed.parameters.shared
    x.requires_grad_(False)
    made.begin_step()
    made.backward(posed.losses, type(posed.parameters)([], posed.parameters.own, x))
    made.end_step(TASKS)
    assert made.weights() == dict.fromkeys(TASKS, 1.0) and all(p.grad is None for p in made.parameters())


def min_norm(j: Matrix) -> Matrix:
    """The shortest vector in the convex hull of the rows: the projection of 0, by non-negative least squares."""
    lift = 1e4 * np.abs(j).max()
    weights, _ = nnls(np.vstack([j.T, lift * np.ones(len(j))]), np.append(np.zeros(j.shape[1]), lift), maxiter=1000)
    return weights / weights.sum() @ j


def cagrad(j: Matrix, c: float = 0.4) -> Matrix:
    """g_0 + c |g_0| g_w / |g_w|, w minimising g_w g_0 + c |g_0| |g_w| on the simplex (algorithm 1)."""
    g0, g = j.mean(0), j @ j.T
    phi = c * np.linalg.norm(g0)

    def cost(w: Matrix) -> float:
        return float(w @ j @ g0 + phi * math.sqrt(max(float(w @ g @ w), 1e-30)))

    starts = [np.full(len(j), 1 / len(j)), *np.eye(len(j)) * 0.8 + 0.2 / len(j)]
    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = [minimize(cost, w, bounds=[(0, 1)] * len(j), constraints=simplex, options={"ftol": 1e-14}) for w in starts]
    gw = min(found, key=lambda each: each.fun).x @ j
    return g0 + phi * gw / np.linalg.norm(gw)


def imtl_g(j: Matrix) -> Matrix:
    """Liu et al. 2021, equation 6: a = g_1 U' (D U')^-1, for tasks 2, 3, ..."""
    u = j / np.linalg.norm(j, axis=1, keepdims=True)
    d, v = j[:1] - j[1:], u[:1] - u[1:]
    a = j[0] @ v.T @ np.linalg.inv(d @ v.T)
    return np.append(1 - a.sum(), a) @ j


def aligned(j: Matrix, scale: str = "min") -> Matrix:
    """The mean of the rows after all singular values became one."""
    u, s, v = np.linalg.svd(j, full_matrices=False)
    length = {"min": s.min(), "median": float(np.median(s)), "rmse": math.sqrt((s**2).mean())}[scale]
    return length * (u @ v).mean(0)


def upgrad(j: Matrix) -> Matrix:
    """The mean of the rows' projections on the cone {x: J x >= 0} (Moreau: row + J'l, l >= 0 the nearest)."""
    return np.mean([row + j.T @ nnls(j.T, -row, maxiter=1000)[0] for row in j], axis=0)


@pytest.mark.parametrize(("kind", "formula", "within"), [
    ("mgda", min_norm, 0.05), ("cagrad", cagrad, 1e-3), ("imtl-g", imtl_g, 1e-6), ("aligned-mtl", aligned, 1e-8),
    ("upgrad", upgrad, 0.02),
])  # fmt: skip
@given(seed=SEEDS)
@few
def test_aggregators_are_their_papers_times_the_number_of_tasks(kind: str, formula, within: float, seed: int) -> None:  # type: ignore[no-untyped-def]
    """Frank-Wolfe (MGDA) and torchjd's regularisation (UPGrad; the root of 1e-4) leave an error, relative to the longest gradient."""
    rows = random_rows(seed)
    j = matrix(rows)
    expected = 3 * formula(j)
    found = step(weighting(kind), rows)[0].shared
    scale = np.linalg.norm(j, axis=1).max() * (1 if kind != "imtl-g" else max(1, np.abs(expected).max()))
    assert np.linalg.norm(found - expected) <= within * 3 * scale


@pytest.mark.parametrize("scale", ["median", "rmse"])
def test_aligned_mtl_by_other_singular_values(scale: str) -> None:
    rows = random_rows(2)
    found = step(weighting("aligned-mtl", scale=scale), rows)[0].shared
    assert found == pytest.approx(3 * aligned(matrix(rows), scale))


def test_mgda_of_two_tasks_is_the_closed_form() -> None:
    """Sener and Koltun 2018, algorithm 1."""
    for seed in range(20):
        rows = random_rows(seed, tasks=TASKS[:2])
        a, b = matrix(rows)
        share = float(np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1))
        assert step(weighting("mgda"), rows)[0].shared == pytest.approx(2 * (share * a + (1 - share) * b))


def projected(j: Matrix, orders: tuple[tuple[int, ...], ...]) -> Matrix:
    """PCGrad with the others of each task in the order given (Yu et al. 2020, algorithm 1)."""
    total = np.zeros(j.shape[1])
    for row, others in zip(j, orders, strict=True):
        now = row.copy()
        for other in others:
            if (product := now @ j[other]) < 0:
                now -= product / (j[other] @ j[other]) * j[other]
        total += now
    return total


@given(seed=SEEDS)
@few
def test_pcgrad_projects_in_one_of_the_orders_there_are(seed: int) -> None:
    rows, made = random_rows(seed, size=3), weighting("pcgrad")
    j = matrix(rows)
    orders = itertools.product(*[itertools.permutations({0, 1, 2} - {task}) for task in range(3)])
    possible = [projected(j, each) for each in orders]
    for _ in range(3):
        found = step(made, rows)[0].shared
        assert min(float(np.abs(found - each).max()) for each in possible) < 1e-9


def test_pcgrad_takes_another_order_in_another_step_and_none_of_torchs_own_draws() -> None:
    rows = {"digits": [1.0, 0.0, 0.0], "flowers": [-1.0, 0.5, 0.0], "signs": [-1.0, -0.5, 0.3]}
    made, state = weighting("pcgrad"), torch.get_rng_state()
    found = {step(made, rows)[0].shared.round(9).tobytes() for _ in range(30)}
    assert len(found) > 1 and torch.equal(torch.get_rng_state(), state)


@given(seed=SEEDS, size=st.integers(3, 8))
@few
def test_nash_mtl_solves_the_game(seed: int, size: int) -> None:
    rows = random_rows(seed, size)
    j = matrix(rows)
    posed, used = step(weighting("nash-mtl", max_norm=0.0), rows)
    a = np.array(list(used.values()))
    products = j @ j.T
    ridged = products + 1e-8 * np.trace(products) * np.eye(3)  # tells where tasks all but oppose each other
    assert (a > 0).all() and (ridged @ a) * a == pytest.approx(np.ones(3), rel=1e-6)
    cut = step(weighting("nash-mtl", max_norm=0.5), rows)[0].shared
    assert cut == pytest.approx(0.5 * posed.shared / np.linalg.norm(posed.shared))


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
def test_nash_mtl_is_torchjds_where_that_arrives() -> None:
    """The authors' sequence of convex programs begins at ones, and must: there every task has to gain."""
    from torchjd.aggregation import NashMTL

    rows = {task: np.abs(row).tolist() for task, row in random_rows(7).items()}
    theirs = NashMTL(3, max_norm=1.0, optim_niter=100)(torch.tensor(matrix(rows))).numpy()
    assert step(weighting("nash-mtl"), rows)[0].shared == pytest.approx(theirs, rel=1e-2)


def test_nash_mtl_keeps_its_weights_between_solutions() -> None:
    made = weighting("nash-mtl", max_norm=0.0, update_every=3)
    used = [step(made, random_rows(number))[1] for number in range(5)]
    assert used[0] == used[1] == used[2] != used[3] == used[4]


@pytest.mark.parametrize("kind", ["upgrad", "pcgrad", "cagrad"])
def test_without_conflict_it_is_the_sum(kind: str) -> None:
    rows = {"digits": [1.0, 0.0, 0.2], "flowers": [0.5, 2.0, 0.0], "signs": [0.1, 0.3, 3.0]}
    found = step(weighting(kind, c=0.0), rows)[0].shared
    assert found == pytest.approx(matrix(rows).sum(0), rel=1e-3)
