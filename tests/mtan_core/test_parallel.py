"""Two processes against one: outputs, gradients, statistics and weightings in float64, by a real gloo group."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mtan_core.errors import UserError
from mtan_core.norm import NormMode, synchronise
from mtan_core.parallel import ALONE, Group, ProcessGroup, refuse_few_images
from mtan_core.step import Batch, TrainingStep, classification_loss
from mtan_core.weightings import make_weighting, weightings
from tests.mtan_core.tiny import CLASSES, tiny_batches, tiny_network
from tests.together import Both

SIZES = {"digits": 4, "flowers": 5, "signs": 3}  # parts of unequal size
EXACT = {"rtol": 0.0, "atol": 1e-10}


@dataclass(frozen=True)
class Case:
    norm: NormMode = "domain"
    weighting: str = "equal"
    accumulate: int = 1
    clip: float = 0.0
    mixup: bool = False
    synchronised: bool = True
    steps: int = 2


@dataclass(frozen=True)
class Learnt:
    """What a process has after the steps of a case: parameters, buffers, and what the last step saw."""

    state: dict[str, Tensor]
    gradients: dict[str, Tensor]
    weighting: dict[str, float]
    outcomes: dict[str, tuple[float, int, int]]


def whole_batches(case: Case, number: int) -> dict[str, Batch]:
    batches = {task: tiny_batches(size, number)[task] for task, size in SIZES.items()}
    if not case.mixup:
        return batches
    return {task: Batch(b.images, b.labels, b.labels.flip(0), 0.7) for task, b in batches.items()}


def part_of(batch: Batch, group: Group) -> Batch:
    rows = group.part(len(batch.labels))
    others = None if batch.other_labels is None else batch.other_labels[rows]
    return Batch(batch.images[rows], batch.labels[rows], others, batch.share)


def learn(case: Case, group: Group) -> Learnt:
    network = tiny_network(case.norm)
    synchronise(network, group)
    weighting = make_weighting(case.weighting, list(CLASSES), seed=3, weights={"signs": 2.0}).double()
    optimizer = torch.optim.SGD([*network.parameters(), *weighting.parameters()], lr=0.1, momentum=0.9)
    step = TrainingStep(
        network, weighting, optimizer, accumulate=case.accumulate, label_smoothing=0.1, clip=case.clip, group=group
    )
    for number in range(case.steps):
        outcomes = step({task: part_of(batch, group) for task, batch in whole_batches(case, number).items()})
    return Learnt(
        network.state_dict(),
        {name: p.grad for name, p in network.named_parameters() if p.grad is not None},
        weighting.weights(),
        {task: (float(o.loss), int(o.correct), int(o.seen)) for task, o in outcomes.items()},
    )


def together(case: Case) -> Learnt:
    return learn(case, ProcessGroup(case.synchronised))


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], **how: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert_close(value, other[name], **how, msg=lambda text, name=name: f"{name}: {text}")


def check(both: Both, case: Case) -> None:
    alone, (first, second) = learn(case, ALONE), both(together, case)
    assert_same(first.state, alone.state, **EXACT)
    assert_same(first.gradients, alone.gradients, **EXACT)
    assert_same(first.state, second.state, rtol=0.0, atol=0.0)
    assert first.weighting == second.weighting == pytest.approx(alone.weighting, abs=1e-10)
    for task, (loss, correct, seen) in alone.outcomes.items():
        assert first.outcomes[task] == (pytest.approx(loss, abs=1e-10), correct, seen)
        assert seen == SIZES[task]


@pytest.mark.parametrize("norm", ["domain", "statistics", "shared"])
def test_a_joint_step_of_two_processes_is_that_of_one(both: Both, norm: NormMode) -> None:
    check(both, Case(norm))


@pytest.mark.parametrize("case", [Case(accumulate=2), Case(clip=0.05), Case(mixup=True)])
def test_parts_clipping_and_mixup_are_those_of_one_process(both: Both, case: Case) -> None:
    check(both, case)


@pytest.mark.parametrize("kind", weightings())
def test_every_weighting_sees_the_whole_batch(both: Both, kind: str) -> None:
    check(both, Case(weighting=kind))


def test_without_synchronisation_each_process_normalises_its_part(both: Both) -> None:
    """Against one process that passes the parts one after the other; running statistics become the parts' mean."""
    case = Case(synchronised=False, steps=1)
    first, second = both(together, case)
    networks = [tiny_network(), tiny_network()]
    batches = whole_batches(case, 0)
    for rank, network in enumerate(networks):
        group = Group()
        group.rank, group.size = rank, 2
        parts = {task: part_of(batch, group) for task, batch in batches.items()}
        logits = network.joint({task: batch.images for task, batch in parts.items()})
        sum(
            classification_loss(logits[task], part, 0.1) * len(part.labels) / len(batches[task].labels)
            for task, part in parts.items()
        ).backward()  # type: ignore[union-attr]
    pairs = zip(networks[0].named_parameters(), networks[1].parameters(), strict=True)
    summed = {name: p.grad + q.grad for (name, p), q in pairs if p.grad is not None and q.grad is not None}
    assert_same(first.gradients, summed, **EXACT)
    assert_same(first.gradients, second.gradients, rtol=0.0, atol=0.0)
    buffers = zip(networks[0].named_buffers(), networks[1].buffers(), strict=True)
    means = {name: (one + other) / 2 for (name, one), other in buffers}
    assert_same({name: first.state[name] for name in means}, means, **EXACT)
    assert_same({name: second.state[name] for name in means}, means, **EXACT)


def gradients_of_three() -> list[float | None]:
    """Of a parameter that only the leader's loss reaches, one that both reach, and one that none does."""
    group = ProcessGroup()
    mine, ours, nobodys = parameters = [torch.nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(3)]
    (mine + ours if group.leads else 2 * ours).backward()
    group.add_up(parameters)
    return [None if p.grad is None else float(p.grad) for p in (mine, ours, nobodys)]


def test_gradients_that_one_process_lacks_are_summed_and_those_of_nobody_stay_none(both: Both) -> None:
    assert both(gradients_of_three) == [[1.0, 3.0, None]] * 2


@pytest.mark.parametrize("count", [2, 5, 7])
def test_parts_are_the_whole(count: int) -> None:
    rows: list[int] = []
    for rank in range(2):
        group = Group()
        group.rank, group.size = rank, 2
        rows += range(count)[group.part(count)]
    assert rows == list(range(count))


def test_a_batch_smaller_than_the_group_is_refused() -> None:
    group = Group()
    group.size = 4
    with pytest.raises(UserError, match="`batch_size`: expected at least an image for each of 4 workers, found 3"):
        refuse_few_images("`batch_size`", 3, group)
