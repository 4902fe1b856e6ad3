"""Shared, own and adapted convolutions against the formulas of their papers."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mtan_core.convs import ConvKind, PiggybackConv, SharedConv, make_conv, pointwise
from mtan_core.network import owner_of
from mtan_core.segments import Segments

KINDS: tuple[ConvKind, ...] = get_args(ConvKind)
TASKS = ("digits", "flowers", "signs")
SHAPES = [(3, 4, 3, 1), (4, 6, 3, 2), (4, 4, 3, 1), (4, 6, 1, 2)]  # inputs, outputs, kernel, stride


def made(kind: ConvKind, shape: tuple[int, int, int, int], moved: bool = True) -> Any:
    inputs, outputs, kernel, stride = shape
    torch.manual_seed(0)
    conv = make_conv(kind, inputs, outputs, kernel, stride=stride, padding=kernel // 2)
    for task in TASKS:
        conv.add_task(task)
    if moved:  # adapters begin as the identity, which would hide mistakes
        for parameter in conv.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
    return conv.double()


def formula(kind: ConvKind, state: dict[str, Tensor], x: Tensor, task: str, kernel: int, stride: int) -> Tensor:
    """One task's output, written from the papers."""

    def conv(weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, stride, kernel // 2)

    def one_by_one(values: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bihw,oi->bohw", values, weight[:, :, 0, 0])

    own = {name.removeprefix(f"own.{task}."): value for name, value in state.items() if name.startswith(f"own.{task}.")}
    if kind == "own":
        return conv(own["weight"], own["bias"])
    weight, bias = state["weight"], state.get("bias")
    adapts = kernel == 3
    if kind == "series" and adapts:
        return conv(weight, bias) + one_by_one(conv(weight, bias), own["weight"])
    if kind == "parallel" and adapts:
        return conv(weight, bias) + one_by_one(x[:, :, ::stride, ::stride], own["weight"])
    if kind == "low_rank" and adapts:
        matrix = own["up.weight"][:, :, 0, 0] @ own["down.weight"][:, :, 0, 0]
        return conv(weight, bias) + one_by_one(x[:, :, ::stride, ::stride], matrix[:, :, None, None])
    if kind == "piggyback":
        return conv(weight * (own["weight"] > 0.005), bias)
    if kind == "controllers":
        combined = torch.einsum("po,oikl->pikl", own["weight"][:, :, 0, 0], weight)
        return conv(combined, own["bias"])
    return conv(weight, bias)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 3, 2)])
def test_a_joint_batch_goes_through_each_tasks_formula(
    kind: ConvKind, shape: tuple[int, int, int, int], sizes: tuple[int, ...]
) -> None:
    conv = made(kind, shape)
    x = torch.randn(sum(sizes), shape[0], 8, 8, dtype=torch.float64)
    state = {name: value.detach() for name, value in conv.state_dict().items()}
    joint = conv(x, Segments(TASKS, sizes))
    for task, part, output in zip(TASKS, x.split(sizes), joint.split(sizes), strict=True):
        assert_close(output, formula(kind, state, part, task, *shape[2:]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "own"])
def test_a_new_task_begins_with_the_pool_as_it_is(kind: ConvKind) -> None:
    conv = made(kind, (4, 6, 3, 2), moved=False)
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    bias = None if kind == "controllers" else conv.bias  # controllers bring their own, see `take_pool`
    pretrained = F.conv2d(x, conv.weight, bias, 2, 1)
    assert_close(conv(x, Segments(("signs",), (2,))), pretrained, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_batch_reaches_only_shared_and_own_parameters(kind: ConvKind, kernel: int) -> None:
    conv = made(kind, (4, 6, kernel, 1))
    conv(torch.randn(2, 4, 8, 8, dtype=torch.float64), Segments(("flowers",), (2,))).square().sum().backward()
    reached = {owner_of(name) for name, p in conv.named_parameters() if p.grad is not None}
    assert reached <= {"shared", "flowers"}
    assert "flowers" in reached or not any(name.startswith("own.flowers") for name, _ in conv.named_parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for n, p in conv.named_parameters() if "own.flowers" in n)


def test_the_straight_through_estimator_gives_scores_the_gradient_of_the_mask() -> None:
    conv: PiggybackConv = made("piggyback", (4, 6, 3, 1))
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    mask = (conv.own["digits"].weight > 0.005).double().requires_grad_()  # type: ignore[operator]
    F.conv2d(x, conv.weight.detach() * mask, conv.bias, 1, 1).square().sum().backward()
    conv(x, Segments(("digits",), (2,))).square().sum().backward()
    assert 0 < mask.mean() < 1
    assert mask.grad is not None
    assert_close(conv.own["digits"].weight.grad, mask.grad, rtol=0, atol=1e-12)


def test_what_a_task_adds_is_counted_as_in_the_papers() -> None:
    """A parallel or series adapter beside a 3x3 convolution of equal channels: a ninth of it."""
    for kind, added in (("series", 64 * 64), ("parallel", 64 * 64), ("shared", 0), ("own", 9 * 64 * 64 + 64)):
        conv = make_conv(kind, 64, 64, 3)  # type: ignore[arg-type]
        before = sum(p.numel() for p in conv.parameters())
        conv.add_task("digits")
        assert sum(p.numel() for p in conv.parameters()) - before == added
    low = make_conv("low_rank", 64, 64, 3, rank=0.25)
    assert isinstance(low, SharedConv)
    low.add_task("digits")
    assert sum(p.numel() for n, p in low.named_parameters() if n.startswith("own")) == 2 * 64 * 16


@pytest.mark.parametrize("bias", [True, False])
def test_pixels_that_all_tasks_look_at_are_convolved_for_each(bias: bool) -> None:
    """Of the concatenation of shared rows and each task's own, values and all gradients, without a copy of the shared ones."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    own = torch.randn(6, 3, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    convs = [nn.Conv2d(7, 6, 1, bias=bias, dtype=torch.float64) for _ in range(3)]
    found = pointwise([shared, own], Segments(("a", "b", "c"), (2, 2, 2)), convs)
    parts = zip(convs, own.split(2), strict=True)
    expected = torch.cat([conv(torch.cat([shared, part], 1)) for conv, part in parts])
    assert_close(found, expected, rtol=0, atol=1e-12)
    direction = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    wanted = [shared, own, *(parameter for conv in convs for parameter in conv.parameters())]
    for one, other in zip(*(torch.autograd.grad(y, wanted, direction) for y in (found, expected)), strict=True):
        assert_close(one, other, rtol=0, atol=1e-12)


def test_shared_pixels_follow_autocast() -> None:
    shared = torch.rand(2, 4, 3, 5, requires_grad=True)
    convs = [nn.Conv2d(4, 6, 1) for _ in range(3)]
    segments = Segments(("a", "b", "c"), (2, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        found = pointwise([shared], segments, convs)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), pointwise([shared], segments, convs), rtol=0.02, atol=0.02)
    found.sum().backward()
    assert shared.grad is not None and shared.grad.dtype == torch.float32
    assert all(conv.weight.grad is not None and conv.weight.grad.dtype == torch.float32 for conv in convs)
