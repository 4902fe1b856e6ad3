"""MTAN on any convolutional network: torchvision's families, and one of the user's own."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.models import get_model

from mtan_core.backbone import Backbone
from mtan_core.backbone_source import find_module
from mtan_core.errors import UserError
from mtan_core.ladder import Ladder
from mtan_core.network import AttentionNetwork
from mtan_core.norm import NormMode
from mtan_core.segments import Segments

FAMILIES = {"resnet18": 5, "convnext_tiny": 4, "mobilenet_v3_small": 5}  # and the stages found at 64 pixels
CLASSES = {"digits": 5, "flowers": 3}


class Plain(nn.Module):
    """A network of a user's own, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.Dropout(), nn.ReLU())
        self.third = nn.Conv2d(6, 8, 3, stride=3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.third(self.second(self.first(images))).mean((2, 3))


def network(norm: NormMode = "domain", nodes: tuple[str, ...] = ()) -> AttentionNetwork:
    torch.manual_seed(0)
    pool = Backbone(Plain(), nodes, norm, 16)
    return AttentionNetwork(pool, Ladder(pool.stages, norm), CLASSES).double()


def images(sizes: tuple[int, int] = (2, 3)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        task: torch.randn(size, 3, 16, 16, dtype=torch.float64, generator=generator)
        for task, size in zip(CLASSES, sizes, strict=True)
    }


@pytest.mark.parametrize(("family", "stages"), FAMILIES.items())
def test_families_of_torchvision_carry_ladders(family: str, stages: int) -> None:
    pool = Backbone(get_model(family, weights=None), (), "domain", 64)
    assert len(pool.stages) == stages
    net = AttentionNetwork(pool, Ladder(pool.stages), CLASSES)
    logits = net.joint({"digits": torch.randn(2, 3, 64, 64), "flowers": torch.randn(3, 3, 64, 64)})
    assert {task: tuple(values.shape) for task, values in logits.items()} == {"digits": (2, 5), "flowers": (3, 3)}
    torch.stack([values.sum() for values in logits.values()]).sum().backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if ".masks." in name or "heads" in name)
    assert not [part for part in pool.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("norm", ["domain", "statistics", "shared"])
@pytest.mark.parametrize("sizes", [(2, 2), (2, 3)])
def test_the_joint_pass_equals_the_loop(norm: NormMode, sizes: tuple[int, int]) -> None:
    joint, loop = network(norm), network(norm)
    together = joint.joint(images(sizes))
    torch.stack([logits.square().sum() for logits in together.values()]).sum().backward()
    for task, batch in images(sizes).items():
        logits = loop(batch, task)
        assert_close(together[task], logits, rtol=0, atol=1e-10)
        logits.square().sum().backward()
    for (name, a), (_, b) in zip(joint.named_parameters(), loop.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None and b.grad is not None:
            assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10)
    for (_, a), (_, b) in zip(joint.named_buffers(), loop.named_buffers(), strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)


def test_features_are_those_of_the_module_with_its_learnt_norms() -> None:
    torch.manual_seed(0)
    module = Plain().double()
    module(images()["digits"])  # moves the running statistics
    for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    module.eval()
    batch = images()["digits"]
    expected = [
        module.first(batch),
        module.second(module.first(batch)),
        module.third(module.second(module.first(batch))),
    ]
    pool = Backbone(copy.deepcopy(module).float(), (), "domain", 16)
    for part in pool.modules():
        if hasattr(part, "add_task"):
            part.add_task("digits")
    taps = pool.double().eval()(batch, Segments(("digits",), (2,)))
    for tap, features in zip(taps, expected, strict=True):
        assert_close(tap.features, features, rtol=0, atol=1e-6)  # the learnt norms went through float32


def test_nodes_can_be_named_by_their_modules() -> None:
    net = network(nodes=("first", "second.1", "third"))
    assert net.pool.nodes == ["first.2", "second.1", "third"]  # type: ignore[comparison-overlap]
    assert [(stage.features, stage.shrink) for stage in net.pool.stages] == [(4, 2), (6, 3), (8, 1)]  # type: ignore[union-attr]


def test_dropout_is_off_and_copies_are_whole() -> None:
    net = network()
    batch = images()["flowers"]
    assert torch.equal(net(batch, "flowers"), net(batch, "flowers"))
    twin = copy.deepcopy(net)
    assert torch.equal(twin(batch, "flowers"), net(batch, "flowers"))


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        (("frist",), "no node 'frist' .did you mean 'first.*there are first.0 4x16x16, first.1"),
        (("third", "first"), "expected maps that shrink by whole factors, found third of 3x3 before first.2 of 16x16"),
    ],
)
def test_nodes_that_do_not_fit_are_refused(nodes: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        network(nodes=nodes)


def test_modules_are_found_by_name() -> None:
    assert isinstance(find_module("tests.mtan_core.test_backbone:Plain"), nn.Module)
    for name, told in (
        ("torchvision:resnet81", "torchvision has no model 'resnet81' .did you mean 'resnet18'"),
        ("nowhere.at:all", "MODULE:CALLABLE, found 'nowhere.at:all'"),
        ("tests.mtan_core.test_backbone:Nothing", "found 'tests.mtan_core.test_backbone:Nothing'"),
    ):
        with pytest.raises(UserError, match=told):
            find_module(name)
