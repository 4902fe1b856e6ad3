"""Dense networks on other pools than SegNet: equal to plain loops, owned by name, sized as the images, trained, checked."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from dense_tasks import load_run
from dense_tasks.config import load_config
from dense_tasks.networks import build_network, methods
from dense_tasks.runs import DenseFolder
from mtan_core.checkpoint import read_tensors
from mtan_core.deeplab import LAYERS, BottleneckLadder, GatedBackbone
from mtan_core.dense import DenseNetwork
from mtan_core.dense_backbone import MaskedBackbone
from mtan_core.errors import Interrupted, UserError
from mtan_core.network import owner_of
from mtan_core.norm import NormMode
from tests.dense_tasks.conftest import train_tiny
from tests.dense_tasks.plain_backbones import (
    Plain,
    PlainMtan,
    PlainShared,
    PlainStitched,
    TinyResNet,
)

TASKS = {"semantic": 4, "depth": 1, "normal": 3}
OWN = f"{TinyResNet.__module__}:TinyResNet"
ABLE = [name for name, method in methods().items() if method.on_backbone]


def tapped(method: str, norm: NormMode = "domain") -> DenseNetwork:
    return build_network(method, TASKS, pool=OWN, nodes=LAYERS, size=(32, 48), norm=norm)


def gated(norm: NormMode) -> DenseNetwork:
    """MTAN as on the dilated ResNet-50, but small."""
    pool = GatedBackbone(TinyResNet(), "shared", 32)
    return MaskedBackbone(TASKS, pool, BottleneckLadder(pool.stages, norm), FCNHead)


CASES = {
    "hard-sharing": (lambda: tapped("hard-sharing"), lambda: PlainShared(TASKS)),
    "cross-stitch": (lambda: tapped("cross-stitch"), lambda: PlainStitched(TASKS)),
    "mtan": (lambda: tapped("mtan", "shared"), lambda: PlainMtan(TASKS, gated=False, own=False)),
    "mtan, own norms": (lambda: tapped("mtan"), lambda: PlainMtan(TASKS, gated=False, own=True)),
    "gated": (lambda: gated("shared"), lambda: PlainMtan(TASKS, gated=True, own=False)),
    "gated, own norms": (lambda: gated("domain"), lambda: PlainMtan(TASKS, gated=True, own=True)),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_loop(case: str, training: bool, channels_last: bool) -> None:
    torch.manual_seed(5)
    network, plain = (make().double().train(training) for make in CASES[case])
    assert isinstance(network, DenseNetwork) and isinstance(plain, Plain)
    pairs = stirred(network, plain)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    outputs, expected = network(images), plain(images)
    weights = [torch.randn_like(wanted) for wanted in expected]
    for values in (list(outputs.values()), expected):
        sum((o * w).sum() for o, w in zip(values, weights, strict=True)).backward()  # type: ignore[union-attr]
    for output, wanted in zip(outputs.values(), expected, strict=True):
        torch.testing.assert_close(output, wanted, rtol=0, atol=1e-10)
    parameters, state = dict(network.named_parameters()), network.state_dict()
    for name, value in pairs.items():
        torch.testing.assert_close(state[name], value.detach(), rtol=0, atol=1e-10)
        if name in parameters:
            assert parameters[name].grad is not None and value.grad is not None, name
            scale = max(1.0, float(value.grad.abs().max()))
            torch.testing.assert_close(parameters[name].grad / scale, value.grad / scale, rtol=0, atol=1e-10)


def stirred(network: DenseNetwork, plain: Plain) -> dict[str, Tensor]:
    """Random values in both networks; the plain one's tensors by our names, which are all that ours has."""
    pairs = dict(plain.pairs())  # type: ignore[operator]
    state = network.state_dict()
    assert set(pairs) == set(state)
    with torch.no_grad():
        for name, value in pairs.items():
            if value.is_floating_point():
                noise = torch.rand_like(value) * 0.4 - 0.2
                value.add_(noise.abs() if name.endswith("var") else noise)
            state[name].copy_(value)
    return pairs


def test_own_statistics_with_shared_scales() -> None:
    torch.manual_seed(6)
    shared, apart = (gated(norm).double().train() for norm in ("shared", "statistics"))
    apart.load_state_dict(shared.state_dict(), strict=False)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for task, output in apart(images).items():
        torch.testing.assert_close(output, shared(images)[task], rtol=0, atol=1e-10)
    assert len(apart.task_norms()) == 12
    for norm in apart.task_norms():
        assert len({tuple(norm.statistics[task].mean.tolist()) for task in TASKS}) == len(TASKS)


@pytest.mark.parametrize("method", ABLE)
def test_what_a_task_owns_is_told_by_its_name(method: str) -> None:
    network = tapped(method).train()
    groups = network.parameter_groups()
    assert list(groups) == ["shared", *TASKS]
    assert sum(len(group) for group in groups.values()) == len(list(network.parameters()))
    pool_alone = {"hard-sharing", "mtan"}
    assert bool([name for name in groups["shared"] if name.startswith("pool.")]) == (method in pool_alone)
    images = torch.randn(2, 3, 32, 48)
    network(images)["depth"].square().mean().backward()
    for task in ("semantic", "normal"):
        reached = [name for name, parameter in groups[task].items() if parameter.grad is not None]
        reached = [name for name in reached if bool(network.get_parameter(name).grad.abs().any())]  # type: ignore[union-attr]
        assert bool(reached) == (method == "cross-stitch")
    moving = {owner_of(name) for name, _ in network.named_buffers() if name.startswith("pool.")}
    assert moving <= {"shared"}


def test_row_stitches_do_not_hand_one_tensor_to_operations_in_place() -> None:
    """Of networks that change a tapped map in place each goes on with a copy of the mix."""
    torch.manual_seed(7)
    pool = f"{__name__}:InPlace"
    network = build_network(
        "cross-stitch", {"a": 1, "b": 1}, paper=True, pool=pool, nodes=("first", "last"), size=(16, 16)
    )
    images = torch.randn(2, 3, 16, 16)
    mixed = sum(net.body.first(images) for net in network.own.values())  # type: ignore[operator,union-attr,misc]
    for task, net in network.own.items():  # type: ignore[operator,union-attr]
        expected = network.heads[task](net.body.last(mixed * 2 - 1))  # type: ignore[index,operator]
        torch.testing.assert_close(network.train()(images)[task], nn.functional.interpolate(
            expected, size=(16, 16), mode="bilinear", align_corners=True), rtol=1e-4, atol=1e-4)  # fmt: skip


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x.mul_(2)
        x = x.sub_(1)
        return self.last(x)


class SquaresOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.place = nn.Parameter(torch.zeros(4, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(x) + self.place)


@pytest.mark.parametrize("method", ["hard-sharing", "cross-stitch", "mtan"])
def test_the_dilated_resnet(method: str) -> None:
    tasks = {"semantic": 13, "depth": 1}
    network = build_network(method, tasks, pool="deeplab-resnet50").eval()
    with torch.inference_mode():
        outputs = network(torch.randn(1, 3, 32, 48))
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        task: (1, channels, 32, 48) for task, channels in tasks.items()
    }
    with torch.device("meta"):
        resnet = count(resnet50()) - 2048 * 1000 - 1000
        heads = sum(count(DeepLabHead(2048, outputs)) for outputs in tasks.values())
    expected = {"hard-sharing": resnet + heads, "cross-stitch": 2 * resnet + heads + 3 * 4, "mtan": resnet + heads}
    assert count(network) - (ladder_of_the_benchmarks() if method == "mtan" else 0) == expected[method]
    with pytest.raises(UserError, match="multiples of 8, found 36x32"):
        network(torch.zeros(1, 3, 36, 32))
    if method == "mtan":
        masks = network.masks(torch.randn(1, 3, 32, 48))
        sizes = [(256, 8, 12), (512, 4, 6), (1024, 4, 6), (2048, 4, 6)]
        assert all([tuple(mask.shape[1:]) for mask in stages] == sizes for stages in masks.values())


def ladder_of_the_benchmarks() -> int:
    """Parameters of two tasks' masks, and of the three blocks with a set of norms for each task."""
    channels, total = (256, 512, 1024, 2048), 0
    for place, c in enumerate(channels):
        seen = 2 * c if place else c
        total += 2 * (seen * c // 4 + c // 4 + c // 4 * c + c + 2 * (c // 4 + c))
        if place < 3:
            out = channels[place + 1]
            hidden = out // 4
            convs = c * hidden + 9 * hidden**2 + hidden * out + c * out
            total += convs + 2 * 2 * (2 * hidden + 2 * out)
    return total


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("method", ["hard-sharing", "cross-stitch", "mtan"])
def test_a_network_of_torchvision_s(method: str) -> None:
    network = build_network(method, TASKS, pool="torchvision:mobilenet_v3_small", size=(64, 96)).eval()
    for size in ((64, 96), (50, 71)):  # of other sizes than it was looked at by, too
        outputs = network(torch.randn(2, 3, *size))
        assert {task: tuple(output.shape) for task, output in outputs.items()} == {
            task: (2, channels, *size) for task, channels in TASKS.items()
        }
    if method == "mtan":
        assert [mask.shape[2:] for mask in network.masks(torch.randn(1, 3, 64, 96))["depth"]] == [
            (32, 48), (16, 24), (8, 12), (4, 6), (2, 3)
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["method=dense", "pool=deeplab-resnet50"], "on the pool deeplab-resnet50 there are .*mtan.*, found dense"),
        (["pool=segnat"], "segnet, deeplab-resnet50, torchvision:NAME.*found 'segnat'.*segnet"),
        (["pool=deeplab-resnet50", "network.filters=[3,4]"], "`network.filters` are those of segnet"),
        (["network.nodes=layer1"], "`network.nodes` are those of torchvision:NAME"),
    ],
)
def test_refused_by_the_configuration(changes: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_config("segnet", None, changes)


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        ("torchvision:resnet81", "no classification model 'resnet81'"),
        (f"{__name__}:SquaresOnly", "for images of 32x64 pixels, found one that fails"),
        ("nowhere:net", "expected torchvision:NAME, timm:NAME or MODULE:CALLABLE, found 'nowhere:net'"),
        (f"{__name__}:OWN", "OWN.. makes a network, found TypeError"),
    ],
)
def test_refused_before_training(root: Path, tmp_path: Path, pool: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        train_tiny(root, tmp_path / "run", f"pool={pool}", "network.filters=[]")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "weighting"), [("mtan", "pcgrad"), ("mtan", "gradnorm"), ("hard-sharing", "gradnorm"), ("cross-stitch", "pcgrad")]
)  # fmt: skip
def test_weightings_that_look_at_gradients_learn(root: Path, tmp_path: Path, method: str, weighting: str) -> None:
    changes = (f"method={method}", f"weighting.kind={weighting}", f"pool={OWN}", "network.filters=[]", "batch_size=4")
    summary = train_tiny(root, tmp_path / "run", *changes, "phases=[{epochs = 1}]")
    assert (summary["pool"], summary["steps"]) == (OWN, 1)


@pytest.mark.parametrize("method", ["hard-sharing", "cross-stitch", "mtan"])
def test_a_run_goes_on_bit_for_bit(root: Path, tmp_path: Path, method: str) -> None:
    changes = (f"method={method}", f"pool={OWN}", "network.filters=[]", "network.nodes=layer1,layer2,layer4")
    train_tiny(root, tmp_path / "whole", *changes)
    with pytest.raises(Interrupted):
        train_tiny(root, tmp_path / "parts", *changes, stop=iter([False, True, True, True, True]).__next__)
    train_tiny(root, tmp_path / "parts", *changes, resume=True)
    whole, parts = (read_tensors(DenseFolder(tmp_path / name).checkpoint(), "weights") for name in ("whole", "parts"))
    assert set(whole) == set(parts) and all(torch.equal(whole[name], parts[name]) for name in whole)
    run = load_run(tmp_path / "parts")
    assert {name: tuple(x.shape) for name, x in run.network(torch.rand(1, 3, 32, 64)).items()} == {
        "semantic": (1, 13, 32, 64), "depth": (1, 1, 32, 64), "normal": (1, 3, 32, 64)
    }  # fmt: skip
