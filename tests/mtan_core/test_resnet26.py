"""The ResNet-26 of the adapter papers against torch's own blocks, and its parameters against the published multiples."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mtan_core.convs import ConvKind
from mtan_core.norm import TaskNorm
from mtan_core.resnet26 import ResNet26
from mtan_core.segments import Segments


def with_tasks(pool: ResNet26, count: int) -> ResNet26:
    for number in range(count):
        for module in pool.modules():
            if hasattr(module, "add_task"):
                module.add_task(f"task{number}")  # type: ignore[operator]
    return pool


def reference(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """Written after the paper's text with torch's functions; batch statistics."""

    def normed(name: str, x: Tensor, stride: int = 1) -> Tensor:
        y = F.conv2d(x, state[f"{name}.conv.weight"], None, stride, 1)
        affine = f"{name}.norm.affine.task0"
        return F.batch_norm(y, None, None, state[f"{affine}.weight"], state[f"{affine}.bias"], training=True)

    x = F.relu(normed("stem", images))
    taps = [x]
    for group in range(3):
        for block in range(4):
            name = f"groups.{group}.{block}"
            y = normed(f"{name}.conv2", F.relu(normed(f"{name}.conv1", x, 2 if block == 0 else 1)))
            if block == 0:
                x = nn.AvgPool2d(2)(x)
                x = torch.cat([x, torch.zeros(len(x), y.shape[1] - x.shape[1], *x.shape[2:], dtype=x.dtype)], 1)
            x = F.relu(x + y)
        taps.append(x)
    return taps


def test_taps_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    pool = with_tasks(ResNet26(width=0.25), 1).double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    taps = pool(images, Segments(("task0",), (2,)))
    for tap, expected in zip(taps, reference(dict(pool.state_dict()), images), strict=True):
        assert_close(tap.features, expected, rtol=0, atol=1e-10)
    assert [tap.features.shape[1] for tap in taps] == [stage.features for stage in pool.stages] == [8, 16, 32, 64]


def test_odd_sides_fit() -> None:
    pool = with_tasks(ResNet26(width=0.25), 1)
    taps = pool(torch.randn(2, 3, 36, 36), Segments(("task0",), (2,)))
    assert [tap.features.shape[-1] for tap in taps] == [36, 18, 9, 5]


@pytest.mark.parametrize(("conv", "published"), [("series", 2.0), ("parallel", 2.0), ("own", 10.0), ("shared", 1.0)])
def test_ten_domains_cost_the_published_multiple(conv: ConvKind, published: float) -> None:
    """(pool + nine added domains) / pool, normalisation apart (Rebuffi 2018, table 2)."""
    with torch.device("meta"):
        pool, ten = ResNet26(), ResNet26(conv=conv)
        for number in range(9 if conv != "own" else 10):
            for module in ten.modules():
                if hasattr(module, "add_task") and not isinstance(module, TaskNorm):
                    module.add_task(f"task{number}")  # type: ignore[operator]
    sizes = [sum(p.numel() for name, p in net.named_parameters() if ".affine." not in name) for net in (pool, ten)]
    assert sizes[0] == 5_806_944
    assert sizes[1] / sizes[0] == pytest.approx(published, abs=0.1)
