"""Distillation against formulas written out image by image in float64, and what teachers may touch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from mtan_core.distillation import Distillation, Strengths, kernel_cka, soft_loss
from mtan_core.network import Answer, AttentionNetwork
from mtan_core.step import TrainingStep, classification_loss
from mtan_core.weightings.equal import Equal
from tests.mtan_core.tiny import tiny_batches, tiny_network


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def written_out_cka(x: Tensor, y: Tensor) -> float:
    """Kornblith et al. 2019 by sums over pairs of images, HSIC with the centring matrix."""
    kernels, n = [], len(x)
    for v in (x.tolist(), y.tolist()):
        squares = [[sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) for b in v] for a in v]
        pairs = sorted(squares[i][j] for i in range(n) for j in range(i + 1, n))
        median = pairs[(len(pairs) - 1) // 2]
        kernels.append([[math.exp(-squares[i][j] / (2 * median)) for j in range(n)] for i in range(n)])
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = (centring @ torch.tensor(kernel, dtype=torch.float64) @ centring for kernel in kernels)
    return float(torch.trace(k @ m) / (torch.trace(k @ k) * torch.trace(m @ m)).sqrt())


@pytest.mark.parametrize("images", [2, 5, 8])
def test_cka_is_that_of_the_formula(images: int) -> None:
    x, y = draw(images, 6), draw(images, 4, seed=1)
    assert float(kernel_cka(x, y)) == pytest.approx(written_out_cka(x, y), abs=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(3, 12), scale=st.floats(1e-3, 1e3))
def test_cka_knows_no_rotation_scale_or_order(seed: int, images: int, scale: float) -> None:
    x, y = draw(images, 5, seed=seed), draw(images, 5, seed=seed + 1)
    rotation, _ = torch.linalg.qr(draw(5, 5, seed=seed + 2))
    alike = float(kernel_cka(x, y))
    assert 0 <= alike <= 1 + 1e-9
    assert float(kernel_cka(scale * x @ rotation, y)) == pytest.approx(alike, abs=1e-6)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    assert float(kernel_cka(x[order], y[order])) == pytest.approx(alike, abs=1e-9)
    assert float(kernel_cka(x, x)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("x", [torch.ones(1, 3), torch.ones(4, 3), torch.zeros(2, 3)])
def test_cka_of_images_that_cannot_be_told_apart_is_0_and_has_a_gradient(x: Tensor) -> None:
    x = x.clone().requires_grad_()
    alike = kernel_cka(x, draw(*x.shape).float())
    alike.backward()
    assert alike == 0
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_soft_loss_is_that_of_the_formula() -> None:
    logits, wanted, temperature = draw(3, 4), draw(3, 4, seed=1), 8.0
    total = 0.0
    for ours, theirs in zip(logits / temperature, wanted / temperature, strict=True):
        q = [math.exp(float(v)) / sum(math.exp(float(w)) for w in ours) for v in ours]
        p = [math.exp(float(v)) / sum(math.exp(float(w)) for w in theirs) for v in theirs]
        total += sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))
    assert float(soft_loss(logits, wanted, temperature)) == pytest.approx(temperature**2 * total / 3, abs=1e-10)


def teacher_network() -> AttentionNetwork:
    """One that knows more than it was born with, so that it differs from the student."""
    network = tiny_network()
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
    return network


def test_the_terms_are_added_to_the_labels_loss_and_fade() -> None:
    student, teacher, batches = tiny_network(), teacher_network(), tiny_batches()
    strengths = Strengths(features=0.5, logits=2.0, temperature=3.0, tasks={"signs": 0.25})
    distillation = Distillation(student, [(teacher, list(batches))], strengths).double()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    step = TrainingStep(student, Equal(list(batches)), optimizer, distillation=distillation)
    images = {task: batch.images for task, batch in batches.items()}
    ours, theirs = student.answer(images), teacher.answer(images)
    for left in (1.0, 0.3, 0.0):
        distillation.left = left
        losses, outcomes = step.losses(batches)
        for task, batch in batches.items():
            aligned = ours.features[task] @ distillation.align[task].weight.T
            unit = [v / v.norm(dim=1, keepdim=True) for v in (aligned, theirs.features[task])]
            terms = 0.5 * (1 - written_out_cka(*unit)) + 2.0 * soft_loss(ours.logits[task], theirs.logits[task], 3.0)
            raw = classification_loss(ours.logits[task], batch, 0)
            assert_close(outcomes[task].loss, raw.detach())
            expected = raw + left * (0.25 if task == "signs" else 1) * terms
            assert_close(losses[task].detach(), expected.detach(), rtol=0, atol=1e-10)


def test_a_step_moves_the_student_and_the_alignments_of_its_tasks_alone() -> None:
    student, teachers, batches = tiny_network(), [teacher_network(), tiny_network()], tiny_batches()
    taught = list(zip(teachers, (["digits"], ["flowers", "signs"]), strict=True))
    distillation = Distillation(student, taught).double()
    optimizer = torch.optim.AdamW([*student.parameters(), *distillation.parameters()], lr=0.1, weight_decay=0.1)
    step = TrainingStep(student, Equal(list(batches)), optimizer, distillation=distillation)
    parts = {"student": student, "teacher": teachers[0], "distillation": distillation}
    before = {(k, n): v.clone() for k, part in parts.items() for n, v in part.state_dict().items()}
    step({"digits": batches["digits"]})
    moved = {
        (k, n) for k, part in parts.items() for n, v in part.state_dict().items() if not torch.equal(v, before[k, n])
    }
    assert ("distillation", "align.digits.weight") in moved and ("distillation", "align.signs.weight") not in moved
    assert not any(part == "teacher" for part, _ in moved)
    assert any(part == "student" for part, _ in moved)


def test_answers_are_the_logits_and_what_the_heads_stand_on() -> None:
    student = tiny_network().eval()
    images = {task: batch.images for task, batch in tiny_batches().items()}
    answer = student.answer(images)
    assert isinstance(answer, Answer)
    for task, batch in images.items():
        assert_close(answer.logits[task], student.heads[task](answer.features[task]))
        assert_close(answer.logits[task], student(batch, task), rtol=0, atol=1e-12)
