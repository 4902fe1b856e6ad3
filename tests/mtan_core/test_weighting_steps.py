"""Weightings in the training step of a network: whose gradients they see, and that no way of making a step changes it."""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mtan_core.norm import NormMode
from mtan_core.step import TrainingStep, classification_loss
from mtan_core.weighting import GradientWeighting, Parameters, Row, Weighting, rows_of
from mtan_core.weightings import make_weighting
from mtan_core.workers import Workers
from tests.mtan_core.tiny import CLASSES, tiny_batches, tiny_network
from tests.mtan_core.weighting_cases import AGGREGATORS, KINDS

GRADIENT = ("gradnorm", *AGGREGATORS)
NORMS: tuple[NormMode, ...] = ("domain", "statistics", "shared")


def made_step(kind: str, norm: NormMode = "domain", dtype: torch.dtype = torch.float64, **options: Any) -> TrainingStep:
    network = tiny_network(norm, dtype)
    weighting = make_weighting(kind, list(CLASSES), seed=2).to(dtype)
    optimizer = torch.optim.SGD([*network.parameters(), *weighting.parameters()], lr=0.05, momentum=0.9)
    return TrainingStep(network, weighting, optimizer, **options)


class Watched(GradientWeighting):
    """Keeps the rows that it is given; weights are 1."""

    rows: dict[str, Row]

    def gather(self, rows: Any, parameters: Any) -> None:
        self.rows = {row.task: row for row in rows}

    def end_step(self, tasks: Any) -> None:
        pass


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("workers", [None, 2])
def test_rows_are_the_jacobian_of_the_losses_for_pool_and_shared_convolutions(
    norm: NormMode, workers: int | None
) -> None:
    """Against torch.autograd.grad of each task's loss in the joint graph of all, parameter by parameter."""
    step = made_step("equal", norm, workers=Workers(workers) if workers and norm != "shared" else None)
    step.weighting = watched = Watched(list(CLASSES))
    names = {id(p): name for name, p in step.network.named_parameters()}
    parameters = step.parameters()
    shared = {names[id(p)] for p in parameters.shared}
    assert {f"ladder.stages.{j}.conv.weight" for j in range(4)} < shared
    assert ("ladder.stages.0.norm.affine.shared.weight" in shared) == (norm != "domain")
    assert shared | {names[id(p)] for own in parameters.own.values() for p in own} == set(names.values())
    joint = tiny_network(norm)
    step(tiny_batches())
    logits = joint.joint({task: batch.images for task, batch in tiny_batches().items()})
    by_name = dict(joint.named_parameters())
    for task, batch in tiny_batches().items():
        loss = classification_loss(logits[task], batch, 0.0)
        row = watched.rows[task]
        assert_close(row.loss, loss.detach())
        for held, gradients in ((parameters.shared, row.shared), (parameters.own[task], row.own)):
            for parameter, gradient in zip(held, gradients, strict=True):
                name = names[id(parameter)]
                (expected,) = torch.autograd.grad(loss, by_name[name], retain_graph=True)
                assert gradient is not None, name
                assert_close(gradient, expected, rtol=1e-9, atol=1e-10)
    for (name, value), (_, other) in zip(step.network.named_buffers(), joint.named_buffers(), strict=True):
        assert_close(value, other, msg=name)


def test_rows_of_one_graph_are_those_of_graphs_of_their_own_and_torchjds_jacobian() -> None:
    """As dense tasks need it: one forward gives the losses of all tasks."""
    from torchjd.autojac import jac

    step = made_step("upgrad")
    parameters = step.parameters()
    losses, _ = step.losses(tiny_batches())
    expected = jac(list(losses.values()), list(parameters.shared), retain_graph=True, parallel_chunk_size=1)
    rows = list(rows_of(losses, parameters))
    for place, row in enumerate(rows):
        (alone,) = rows_of(step.losses({row.task: tiny_batches()[row.task]})[0], parameters)
        for one, other, whole in zip(row.shared, alone.shared, expected, strict=True):
            assert one is not None and other is not None
            assert_close(one, whole[place], rtol=0, atol=0)
            assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", GRADIENT)
def test_a_step_from_one_graph_is_that_from_a_graph_of_each_task(kind: str) -> None:
    apart, together = made_step(kind), made_step(kind)
    apart(tiny_batches())
    together.weighting.begin_step()
    losses, _ = together.losses(tiny_batches())
    together.weighting.backward(losses, together.parameters())
    for (name, a), (_, b) in zip(apart.network.named_parameters(), together.network.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-8, msg=name)


def stepped(kind: str, norm: NormMode = "domain", **options: Any) -> dict[str, Tensor]:
    """The state of network and weighting after a step of all tasks and one of two of them."""
    step = made_step(kind, norm, **options)
    step(tiny_batches())
    some = tiny_batches(seed=1)
    step({task: some[task] for task in ("digits", "signs")})
    logged = {
        f"weight of {task}": torch.tensor(weight or 0.0) for task, weight in step.weighting.epoch_weights().items()
    }
    return {**step.network.state_dict(), **step.weighting.state_dict(), **logged}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_workers_and_accumulation_change_nothing(kind: str) -> None:
    alone = stepped(kind)
    for options in ({"workers": Workers(2)}, {"accumulate": 2}, {"workers": Workers(3), "accumulate": 2}):
        other = stepped(kind, **options)
        assert list(alone) == list(other)
        for name, value in alone.items():
            scale = max(1.0, float(value.abs().max()))
            assert_close(other[name] / scale, value / scale, rtol=0, atol=1e-10)
        if kind in GRADIENT:
            assert all(torch.equal(value, other[name]) for name, value in alone.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_nothing_of_a_task_that_is_not_in_it(kind: str) -> None:
    step = made_step(kind)
    step(tiny_batches())
    own = step.parameters().own["flowers"]
    before = [p.detach().clone() for p in own]
    some = tiny_batches(seed=1)
    step({task: some[task] for task in ("digits", "signs")})
    assert own and all(torch.equal(p, b) for p, b in zip(own, before, strict=True))


@pytest.mark.parametrize("norm", ["statistics", "shared"])
def test_running_statistics_move_as_in_the_joint_step(norm: NormMode) -> None:
    """Each task has a pass of its own, in the joint step's order, so that running statistics move as there."""
    step = made_step("upgrad", norm)
    step(tiny_batches())
    plain = made_step("equal", norm)
    plain(tiny_batches())
    for (name, value), (_, other) in zip(step.network.named_buffers(), plain.network.named_buffers(), strict=True):
        assert_close(value, other, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_fall_and_stay_finite(kind: str, precision: str) -> None:
    step = made_step(kind, dtype=torch.float32, precision=precision, clip=1.0)
    batches = tiny_batches(dtype=torch.float32)
    seen = [{task: float(outcome.loss) for task, outcome in step(batches).items()} for _ in range(5)]
    assert all(math.isfinite(loss) for losses in seen for loss in losses.values())
    assert sum(seen[-1].values()) < 0.9 * sum(seen[0].values())
    assert {p.grad.dtype for p in step.network.parameters() if p.grad is not None} == {torch.float32}


def test_the_weights_gradient_does_not_reach_the_network() -> None:
    """GradNorm's first step, with weights 1, is the plain sum's, whatever its own parameters learn; clipping knows neither."""
    plain, weighted = made_step("equal", clip=0.1), made_step("gradnorm", clip=0.1)
    plain(tiny_batches())
    weighted(tiny_batches())
    assert weighted.weighting.weights() != pytest.approx(plain.weighting.weights())
    for (name, a), (_, b) in zip(plain.network.named_parameters(), weighted.network.named_parameters(), strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


def test_gradnorm_looks_at_the_pools_last_convolution() -> None:
    step = made_step("gradnorm")
    last = step.parameters().last
    assert last is dict(step.network.named_parameters())["pool.groups.2.0.shortcut.weight"]


@pytest.mark.parametrize("kind", GRADIENT)
def test_a_pool_that_stands_still_is_left_alone(kind: str) -> None:
    step = made_step(kind)
    step.network.freeze(["pool", "ladder"])
    before = [p.detach().clone() for p in step.network.pool.parameters()]
    step(tiny_batches())
    assert all(torch.equal(p, b) for p, b in zip(step.network.pool.parameters(), before, strict=True))
    assert all(p.grad is not None for p in step.network.heads.parameters())


def test_gradients_of_what_a_task_does_not_reach_stay_none() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    halves, own = Halves(), Halves()
    for kind in GRADIENT:
        halves.zero_grad()
        own.zero_grad()
        made: Weighting = make_weighting(kind, ["digits"])
        made.begin_step()
        parameters = Parameters([halves.used, halves.unused], {"digits": [own.used, own.unused]}, halves.used)
        made.backward({"digits": (halves.used * own.used).sum()}, parameters)
        assert halves.used.grad is not None and own.used.grad is not None
        assert halves.unused.grad is None and own.unused.grad is None


def test_torchjd_comes_with_the_first_step() -> None:
    """Neither the names nor the objects need it; the names do not even need torch."""
    code = (
        "import sys; from mtan_core.weightings import make_weighting, weightings; weightings();"
        "assert 'torch' not in sys.modules; made = [make_weighting(kind, ['a', 'b']) for kind in weightings()];"
        "assert not {'torchjd', 'cvxpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
