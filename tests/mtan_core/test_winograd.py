"""Winograd's convolution against torch's own."""

import subprocess
import sys
import threading
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from mtan_core import winograd
from mtan_core.winograd import WinogradConv, winograd_conv

sizes, sides = st.integers(1, 4), st.integers(1, 9)


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


@settings(deadline=None, max_examples=40)
@given(
    batch=sizes, inputs=st.integers(1, 5), outputs=st.integers(1, 5), h=sides, w=sides, biased=st.booleans(),
    block=st.sampled_from([1, 240, 2**22]),
)  # fmt: skip
def test_it_is_the_convolution_with_its_gradients(
    batch: int, inputs: int, outputs: int, h: int, w: int, biased: bool, block: int
) -> None:
    x = images(batch, inputs, h, w).requires_grad_()
    weight = images(outputs, inputs, 3, 3).requires_grad_()
    bias = torch.randn(outputs, dtype=torch.float64, requires_grad=True) if biased else None
    learning = [x, weight] if bias is None else [x, weight, bias]
    expected = F.conv2d(x, weight, bias, padding=1)
    gradient = torch.randn_like(expected)
    with patch.object(winograd, "BLOCK", block):
        made = winograd_conv(x, weight, bias)
        found = torch.autograd.grad(made, learning, gradient)
    assert_close(made, expected, rtol=0, atol=1e-12)
    assert_close(found, torch.autograd.grad(expected, learning, gradient), rtol=0, atol=1e-12)


def test_convolutions_of_all_sizes_types_and_modes_share_memory_in_turn() -> None:
    """Of which the first may be made in inference mode, as when statistics are re-estimated."""
    patched = patch.object(winograd, "_WORKSPACES", threading.local())
    with patched as workspaces:
        for number, size in enumerate((6, 8, 4, 9)):
            x, weight = images(2, 3, size, size), images(5, 3, 3, 3)
            with torch.inference_mode(number == 0):
                assert_close(winograd_conv(x, weight, None), F.conv2d(x, weight, padding=1), rtol=0, atol=1e-12)
            x, weight = x.float().requires_grad_(), weight.float()
            first, second = winograd_conv(x, weight, None), winograd_conv(2 * x, weight, None)
            assert_close(second, 2 * first)
            assert_close(
                torch.autograd.grad(first.sum() + second.sum(), [x]),
                torch.autograd.grad(3 * F.conv2d(x, weight, padding=1).sum(), [x]),
                rtol=0, atol=1e-4,
            )  # fmt: skip
        assert len(workspaces.products) == 24 * 2 * 15 * 5 * 8  # the largest: two images of 5x3 tiles, 5 channels


def test_what_needs_no_gradient_gets_none() -> None:
    x, weight = images(2, 3, 4, 4), images(5, 3, 3, 3).requires_grad_()
    bias = torch.zeros(5, dtype=torch.float64)
    (found,) = torch.autograd.grad(winograd_conv(x, weight, bias).sum(), [weight])
    (expected,) = torch.autograd.grad(F.conv2d(x, weight, bias, padding=1).sum(), [weight])
    assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("precision", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1.3e-2)])
def test_rounding_stays_as_small_as_the_module_says(precision: torch.dtype, bound: float) -> None:
    torch.manual_seed(0)
    x = images(4, 256, 16, 16, dtype=precision).requires_grad_()
    weight = (images(64, 256, 3, 3, dtype=torch.float32) / 48).requires_grad_()
    exact = x.detach().double().requires_grad_()
    expected = F.conv2d(exact, weight.double(), padding=1)
    gradient = images(*expected.shape, dtype=precision)
    made = winograd_conv(x, weight, None)
    assert made.dtype == precision
    found = made, *torch.autograd.grad(made, [x, weight], gradient)
    wanted = expected, *torch.autograd.grad(expected, [exact, weight], gradient.double())
    for one, right in zip(found, wanted, strict=True):
        assert (one - right).std() < bound * right.std()


def test_under_autocast_parameters_get_gradients_in_their_own_precision() -> None:
    conv = WinogradConv(128, 128, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        made = winograd_conv(images(2, 128, 4, 4, dtype=torch.float32), conv.weight, conv.bias)
    made.float().square().mean().backward()
    assert conv.weight.grad is not None and conv.weight.grad.dtype == torch.float32
    assert conv.bias is not None and conv.bias.grad is not None and conv.bias.grad.dtype == torch.float32


SUITED = (4, 128, 16, 16)


@pytest.mark.parametrize(
    ("shape", "channels", "suits"),
    [
        (SUITED, 128, True),
        (SUITED, 32, False),  # few products
        ((16, 128, 9, 9), 128, True),
        ((32, 128, 7, 7), 128, True),
        ((32, 128, 5, 5), 128, False),  # much to fill
        ((1, 128, 16, 16), 128, False),  # few tiles
    ],
)
def test_only_what_gains_is_done_that_way(shape: tuple[int, ...], channels: int, suits: bool) -> None:
    conv = WinogradConv(128, channels, 3, padding=1).to(memory_format=torch.channels_last)
    x = images(*shape, dtype=torch.float32)
    assert conv.suits(x) is suits
    assert not conv.suits(x.contiguous())
    assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=0, atol=1e-5)


def test_in_evaluation_it_is_the_plain_convolution_to_the_last_bit() -> None:
    conv = WinogradConv(128, 128, 3, padding=1).eval()
    x = images(*SUITED, dtype=torch.float32)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1))


def test_a_wide_convolution_in_training_compiles_in_one_graph_and_gives_the_same() -> None:
    """In a process of its own, as the compiler cannot trace the shape checks that all other tests run with."""
    subprocess.run(
        [sys.executable, "-c", "import tests.mtan_core.test_winograd as t; t.compare_compiled()"], check=True
    )


def compare_compiled() -> None:
    conv = WinogradConv(128, 128, 3, padding=1).to(memory_format=torch.channels_last)
    x = images(*SUITED, dtype=torch.float32)
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
    assert_close(compiled(x), conv(x), rtol=0, atol=1e-5)
