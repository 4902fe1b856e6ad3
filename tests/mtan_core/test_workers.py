"""Parts of a step at the same time: the same result as in one piece, in the same order every time."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from mtan_core.norm import NormMode
from mtan_core.step import NotFiniteError, TrainingStep
from mtan_core.weightings.uncertainty import Uncertainty
from mtan_core.workers import Workers, cpu_workers, deal
from tests.mtan_core.tiny import CLASSES, tiny_batches, tiny_network

SIZES = st.dictionaries(st.text(min_size=1), st.integers(1, 50), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 8))
def test_dealing_keeps_the_order_and_gives_nobody_much_more_than_a_share(sizes: dict[str, int], hands: int) -> None:
    parts = deal(sizes, hands)
    assert [task for part in parts for task in part] == list(sizes)
    assert len(parts) <= hands
    assert all(parts)
    share = sum(sizes.values()) / hands
    assert max(sum(sizes[task] for task in part) for part in parts) <= share + max(sizes.values())


def test_equal_tasks_are_dealt_evenly() -> None:
    assert [len(part) for part in deal(dict.fromkeys("abcdefghij", 16), 2)] == [5, 5]
    assert [len(part) for part in deal(dict.fromkeys("abcdefghij", 16), 10)] == [1] * 10


def stepped(norm: NormMode, workers: Workers | None, accumulate: int = 1) -> dict[str, Tensor]:
    """The network's state and gradients after two steps, and those of the weighting."""
    network, weighting = tiny_network(norm), Uncertainty(list(CLASSES)).double()
    network.freeze(["heads"])
    optimizer = torch.optim.SGD([*network.parameters(), *weighting.parameters()], lr=0.05, momentum=0.9)
    step = TrainingStep(network, weighting, optimizer, accumulate=accumulate, workers=workers)
    step(tiny_batches())
    some = tiny_batches(seed=1)
    step({task: some[task] for task in ("digits", "signs")})
    gradients = {f"{name}.grad": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {**network.state_dict(), **weighting.state_dict(), **gradients}


@pytest.mark.parametrize("norm", ["domain", "statistics"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_workers_change_nothing(norm: NormMode, count: int, accumulate: int) -> None:
    alone, together = stepped(norm, None), stepped(norm, Workers(count), accumulate)
    assert list(alone) == list(together)
    for name, value in alone.items():
        scale = max(1.0, float(value.abs().max()))
        assert_close(together[name] / scale, value / scale, rtol=0, atol=1e-10)
        assert together[name].stride() == value.stride(), name


def test_workers_give_the_same_bits_every_time() -> None:
    first = stepped("domain", Workers(3))
    for _ in range(3):
        again = stepped("domain", Workers(3))
        assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_a_loss_that_is_not_finite_is_told_by_its_task() -> None:
    network = tiny_network()
    step = TrainingStep(network, Uncertainty(list(CLASSES)), torch.optim.SGD(network.parameters()), workers=Workers(2))
    batches = tiny_batches()
    batches["signs"].images[0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFiniteError) as problem:
        step(batches)
    assert problem.value.args[0] == "signs"


def test_a_worker_that_fails_is_heard_after_all_have_ended() -> None:
    ended: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            raise RuntimeError("part 0")
        assert threading.current_thread() is not threading.main_thread()
        ended.append(number)

    with pytest.raises(RuntimeError, match="part 0"):
        Workers(2).map(work, range(4))
    assert sorted(ended) == [1, 2, 3]


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, tasks, expected in ((1, 10, None), (4, 1, None), (4, 10, (4, 1)), (8, 3, (3, 2))):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        workers = cpu_workers(tasks)
        assert (workers and (workers.count, workers.cores_each)) == expected
