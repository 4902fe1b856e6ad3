"""The loss of a step against its formulas, and what a step must not do."""

import copy

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mtan_core.step import Batch, NotFiniteError, TrainingStep, classification_loss
from mtan_core.weightings.equal import Equal
from mtan_core.weightings.uncertainty import Uncertainty
from tests.mtan_core.tiny import CLASSES, tiny_batches, tiny_network


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean of -sum q log p, q = (1 - smoothing) one-hot + smoothing / classes (Szegedy et al. 2016)."""
    classes = logits.shape[1]
    wanted = torch.full_like(logits, smoothing / classes)
    wanted[torch.arange(len(labels)), labels] += 1 - smoothing
    log_p = logits - torch.log(torch.exp(logits).sum(1, keepdim=True))
    return -(wanted * log_p).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_loss_is_the_formula_of_smoothing_and_mixup(smoothing: float, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 4, dtype=torch.float64, generator=generator)
    labels, others = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 1, 0, 2, 2, 1])
    batch = Batch(torch.zeros(0), labels, None if share == 1 else others, share)
    expected = share * smoothed_cross_entropy(logits, labels, smoothing)
    expected = expected + (1 - share) * smoothed_cross_entropy(logits, others, smoothing)
    assert_close(classification_loss(logits, batch, smoothing), expected, rtol=0, atol=1e-12)


def sgd_step(**options: float) -> TrainingStep:
    network = tiny_network()
    return TrainingStep(network, Equal(list(CLASSES)), torch.optim.SGD(network.parameters(), lr=1.0), **options)  # type: ignore[arg-type]


def gradients(step: TrainingStep) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in step.network.named_parameters() if p.grad is not None}


def test_clipping_scales_all_gradients_to_the_norm() -> None:
    free, clipped = sgd_step(), sgd_step(clip=0.01)
    free(tiny_batches())
    clipped(tiny_batches())
    before, after = gradients(free), gradients(clipped)
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in before.values()]))
    assert norm > 0.01
    for name, gradient in before.items():
        assert_close(after[name], gradient * (0.01 / (norm + 1e-6)), rtol=0, atol=1e-12)


def test_a_wide_clip_changes_nothing() -> None:
    free, clipped = sgd_step(), sgd_step(clip=1e9)
    free(tiny_batches())
    clipped(tiny_batches())
    for name, gradient in gradients(free).items():
        assert_close(gradients(clipped)[name], gradient, rtol=0, atol=0)


def test_outcomes_count_images_and_answers() -> None:
    step = sgd_step()
    before = copy.deepcopy(step.network)
    batches = tiny_batches(size=5)
    outcomes = step(batches)
    logits = before.joint({task: batch.images for task, batch in batches.items()})
    for task, outcome in outcomes.items():
        assert outcome.seen == 5
        assert int(outcome.correct) == int((logits[task].argmax(1) == batches[task].labels).sum())
        assert_close(outcome.loss, smoothed_cross_entropy(logits[task].detach(), batches[task].labels, 0.0))


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_any_parameter_moves(accumulate: int, value: float) -> None:
    step = sgd_step(accumulate=accumulate)
    batches = tiny_batches()
    batches["flowers"].images[0, 0, 0, 0] = value
    before = {name: p.detach().clone() for name, p in step.network.named_parameters()}
    with pytest.raises(NotFiniteError) as problem:
        step(batches)
    assert problem.value.args[0] == "flowers"
    for name, parameter in step.network.named_parameters():
        assert_close(parameter.detach(), before[name], rtol=0, atol=0)


def test_learnt_weights_take_part_in_the_step() -> None:
    network, weighting = tiny_network(), Uncertainty(list(CLASSES)).double()
    optimizer = torch.optim.SGD([*network.parameters(), *weighting.parameters()], lr=0.1)
    outcomes = TrainingStep(network, weighting, optimizer)(tiny_batches())
    for s, outcome in zip(weighting.log_variances, outcomes.values(), strict=True):
        slope = 0.5 - 0.5 * torch.exp(torch.tensor(0.5)).double() * outcome.loss
        assert_close(s.detach(), -0.5 - 0.1 * slope, rtol=0, atol=1e-6)


def test_bf16_keeps_parameters_statistics_losses_and_optimiser_in_fp32() -> None:
    network = tiny_network(dtype=torch.float32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    step = TrainingStep(network, Equal(list(CLASSES)), optimizer, precision="bf16")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outcomes = step(tiny_batches(dtype=torch.float32))
    assert {outcome.loss.dtype for outcome in outcomes.values()} == {torch.float32}
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}
    assert {v.dtype for state in optimizer.state.values() for v in state.values()} == {torch.float32}
    assert any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_bf16_is_near_fp32() -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        network = tiny_network(dtype=torch.float32)
        step = TrainingStep(network, Equal([]), torch.optim.SGD(network.parameters()), precision=precision)  # type: ignore[arg-type]
        losses[precision] = {
            task: loss.item() for task, loss in step.losses(tiny_batches(8, dtype=torch.float32))[0].items()
        }
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]
