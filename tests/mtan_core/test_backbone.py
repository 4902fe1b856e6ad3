"""MTAN on any convolutional network: torchvision's families, and one of the user's own."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mtan_core.backbone import Backbone, BackboneNorm
from mtan_core.backbone_graph import Map, Traced
from mtan_core.backbone_nodes import default_nodes, existing, listed, stages_of
from mtan_core.backbone_source import find_module
from mtan_core.errors import UserError
from mtan_core.ladder import Ladder
from mtan_core.network import AttentionNetwork, owner_of
from mtan_core.norm import NormMode
from mtan_core.segments import Segments

# the modules whose ends are tapped where no nodes are named, at 64 pixels
FAMILIES = {
    "torchvision:resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "torchvision:mobilenet_v3_small": ["features.0", "features.1", "features.3", "features.8", "features.12"],
    "timm:test_byobnet": ["stem", "stages.0", "stages.1", "stages.2", "final_conv"],
    "timm:test_efficientnet": ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "bn2"],
    "timm:tf_mobilenetv3_small_minimal_100": [
        "bn1",
        "blocks.0",
        "blocks.1",
        "blocks.3",
        "blocks.5",
    ],  # pads by the image's size
    "timm:test_convnext": ["stages.0", "stages.1", "stages.2", "norm_pre"],
}
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


def images(sizes: tuple[int, int] = (2, 3), side: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        task: torch.randn(size, 3, side, side, dtype=torch.float64, generator=generator)
        for task, size in zip(CLASSES, sizes, strict=True)
    }


def found(name: str) -> nn.Module:
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="needs the extra `timm`")
    torch.manual_seed(0)
    return find_module(name)


def randomised(module: nn.Module) -> nn.Module:
    """In float64, with batch norms that are not the identity."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module.double().eval()


@pytest.mark.parametrize("norm", ["domain", "statistics", "shared"])
def test_running_statistics_follow_the_weights_whatever_momentum_a_network_comes_with(norm: NormMode) -> None:
    """mobilenet_v3's 0.01 would leave them a hundred steps behind: a short run validated near chance."""
    for momentum, kept in ((0.01, 0.1), (None, 0.1), (0.1, 0.1), (0.3, 0.3)):
        plain = Plain()
        plain.first[1] = nn.BatchNorm2d(4, momentum=momentum)
        norms = [part for part in Backbone(plain, (), norm, 16).modules() if isinstance(part, BackboneNorm)]
        assert [part.momentum for part in norms] == [kept, 0.1]


@pytest.mark.parametrize(("family", "modules"), FAMILIES.items())
def test_families_carry_ladders_and_give_the_features_of_their_modules(family: str, modules: list[str]) -> None:
    """Each tap is what the module itself gives at the end of the block, in evaluation mode."""
    module = randomised(found(family))
    pool = Backbone(copy.deepcopy(module).float(), (), "domain", 64).double()
    assert [node == module or node.startswith(f"{module}.") for node, module in zip(pool.nodes, modules, strict=True)]
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert not [part for part in pool.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert len([part for part in pool.modules() if isinstance(part, BackboneNorm)]) == len(norms)
    net = AttentionNetwork(pool, Ladder(pool.stages), CLASSES).double()
    batch = images((2, 2), 64)
    expected: list[Tensor] = []
    for name in modules:
        module.get_submodule(name).register_forward_hook(lambda _, __, output: expected.append(output.clone()))
    with torch.no_grad():
        module(batch["digits"])
        taps = net.eval().pool(batch["digits"], Segments(("digits",), (2,)))
    for tap, features in zip(taps, expected, strict=True):
        assert_close(tap.features, features, rtol=1e-5, atol=1e-6)  # the norms went through float32
    logits = net.train().joint(batch)
    torch.stack([values.sum() for values in logits.values()]).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("family", ["timm:test_byobnet", "timm:test_efficientnet"])
def test_norms_with_activations_are_each_task_s_own(family: str) -> None:
    """timm's batch norms normalise a task's images by these alone, and move that task's statistics only."""
    pool = Backbone(found(family), (), "domain", 64).double()
    net = AttentionNetwork(pool, Ladder(pool.stages), CLASSES).double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    batch = images((3, 3), 64)
    together, loop = net.joint(batch), {task: net(part, task) for task, part in batch.items()}
    for task in CLASSES:
        assert_close(together[task], loop[task], rtol=0, atol=1e-9)
    net.load_state_dict(before)
    net(batch["digits"], "digits")
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if ".statistics." in name and owner_of(name) == "digits"}


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
    for (_, moved), (_, expected) in zip(joint.named_buffers(), loop.named_buffers(), strict=True):
        assert_close(moved, expected, rtol=0, atol=1e-10)


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
            part.add_task("digits")  # type: ignore[operator]
    taps = pool.double().eval()(batch, Segments(("digits",), (2,)))
    for tap, features in zip(taps, expected, strict=True):
        assert_close(tap.features, features, rtol=0, atol=1e-6)  # the learnt norms went through float32


def test_nodes_can_be_named_by_their_modules() -> None:
    net = network(nodes=("first", "second.1", "third"))
    assert net.pool.nodes == ["first.2", "second.1", "third"]
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
        (("frist",), "no node 'frist' with a map .did you mean 'first'..; there are first.0 4x16x16, first.1 4x16x16"),
        (
            ("first.9",),
            r"no node 'first.9' .*; in first there are 0 4x16x16, 1 4x16x16, 2 4x16x16\.$",
        ),
        (("mean",), "no node 'mean' with a map; there are first.0"),
        (
            ("third", "first"),
            "expected maps that shrink by whole factors, found third of 3x3 before first.2 of 16x16; there are",
        ),
    ],
)
def test_nodes_that_do_not_fit_are_refused(nodes: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        network(nodes=nodes)


def test_nodes_of_a_large_network_are_told_by_modules_that_can_be_looked_into() -> None:
    """In sentences that can be read, from which every node can be found."""

    def told(node: str) -> str:
        with pytest.raises(UserError) as refused:
            existing(node, maps)
        return str(refused.value)

    maps = Traced(found("torchvision:mnasnet0_5").eval(), 64).maps
    assert len(maps) > 100
    whole = told("layer1")
    assert "layers.0 16x32x32, " in whole and "layers.16 1280x2x2" in whole and len(whole) < 600
    assert "'layers.8.?' as a node lists what is in it" in whole
    assert "in layers.9 there are 0.layers 24x8x8, 1.layers 24x8x8, 1.add 24x8x8" in told("layers.9.?")
    inner = told("layers.9.0.layers.?")
    assert all(
        f" {name.removeprefix('layers.9.0.layers.')} " in inner for name in maps if name.startswith("layers.9.0.")
    )
    flat = {f"add_{place}": Map(8, 16 if place < 90 else 8) for place in range(1, 120)}
    assert listed(flat) == "there are add_1 ... add_89 8x16x16, add_90 ... add_119 8x8x8"


class Odd(nn.Module):
    """Something in a network that domains cannot share, or that cannot be a pool."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.then = nn.Conv2d(4, 4, 3, stride=1 if kind == "one size" else 2, padding=1)
        self.norm: nn.Module = nn.Identity()
        if kind == "subclass":
            self.norm = Doubled(4)
        elif kind == "no statistics":
            self.norm = nn.BatchNorm2d(4, track_running_stats=False)
        elif kind == "as a function":
            self.norm = nn.BatchNorm2d(4)
        elif kind == "volumes":
            self.norm = nn.BatchNorm1d(4)
        elif kind == "tied":
            self.then.weight = nn.Parameter(torch.randn(4, 4, 3, 3))
            self.norm = nn.Conv2d(4, 4, 3)
            self.norm.weight = self.then.weight
        elif kind == "words":
            self.masks = nn.ModuleList([nn.Conv2d(4, 4, 1)])

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        if self.kind == "as a function":
            norm = self.norm
            x = F.batch_norm(x, norm.running_mean, norm.running_var, training=self.training)  # type: ignore[arg-type]
        elif self.kind == "batch":
            x = x - x.mean(0, keepdim=True)
        elif self.kind == "chance":
            x = x + torch.randn_like(x)
        elif self.kind == "branch" and x.sum() > 0:
            x = -x
        elif self.kind == "raises":
            raise RuntimeError("two\nlines")
        elif self.kind == "volumes":
            x = self.norm(x.flatten(2)).view_as(x)
        elif self.kind == "words":
            x = self.masks[0](x)
        else:
            x = self.norm(x)
        return self.then(x)


class Doubled(nn.BatchNorm2d):
    """A batch norm that does more."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("subclass", "torch's BatchNorm2d .* found norm, a Doubled"),
        ("no statistics", "found norm, a BatchNorm2d.*track_running_stats=False"),
        ("volumes", "found norm, a BatchNorm1d"),
        ("as a function", "found norm.running_mean, which moves in training"),
        ("batch", "answers for every image by itself"),
        ("chance", "answers for every image by itself, and alike each time"),
        ("tied", "parameters that stand alone, found then.weight tied to norm.weight"),
        ("words", "no module named own, masks, affine or statistics.*found masks.0"),
        ("branch", "torch can trace, found one it cannot: symbolically traced variables cannot be used"),
        ("raises", "torch can trace, found one it cannot: two.$"),
        ("one size", "whose maps of features change in size, found all of then's size: name the nodes"),
    ],
)
def test_what_domains_cannot_share_is_refused(kind: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        Backbone(Odd(kind), (), "domain", 16)
    assert "\n" not in str(refused.value)


class Shared(nn.Module):
    """One batch norm in two places, a tap that is changed in place later on, and channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.again = self.norm
        self.act = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.layer = nn.LayerNorm(6)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.again(self.conv(self.act(self.norm(self.conv(images))[:, :3])))
        y = self.down(x)
        x += 1
        return {"x": x, "y": self.layer(y.permute(0, 2, 3, 1))}


def test_shared_norms_changes_in_place_and_channels_last() -> None:
    torch.manual_seed(0)
    module = randomised(Shared())
    pool = Backbone(copy.deepcopy(module).float(), ("norm", "norm_1", "layer"), "domain", 16)
    (norm,) = (part for part in pool.modules() if isinstance(part, BackboneNorm))
    norm.add_task("digits")
    pool.double().eval()
    batch = images()["digits"]
    taps = [tap.features for tap in pool(batch, Segments(("digits",), (2,)))]
    first = module.norm(module.conv(batch))  # type: ignore[operator]
    second = module.norm(module.conv(first[:, :3].relu()))  # type: ignore[operator]
    last = module.layer(module.down(second).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[operator]
    for features, expected in zip(taps, (first, second, last), strict=True):
        assert_close(features, expected, rtol=1e-5, atol=1e-6)
    assert pool.stages == [(4, 4, 1, False), (4, 4, 2, False), (6, 6, 1, True)]


def test_sizes_that_are_no_whole_fractions_are_passed_over() -> None:
    maps = {name: Map(8, side) for name, side in {"a": 35, "b": 33, "c": 16, "d": 14, "e": 7, "f": 1}.items()}
    nodes = default_nodes(maps)
    assert nodes == ["d", "e", "f"] and [stage.shrink for stage in stages_of(nodes, maps)] == [2, 7, 1]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with modules of a user's own."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "good_net": "import torch\nprint('hello')\ndef net():\n    return torch.nn.Conv2d(3, 4, 3)\n",
        "broken_net": "1 / 0\n",
        "leaving_net": "raise SystemExit(3)\n",
        "unfit_net": "import a_package_that_nobody_has\n",
        "odd_net": "def number():\n    return 7\ndef fails(size):\n    pass\ndef leaves():\n    exit(1)\nvalue = 3\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_user_s_module_lies_in_the_current_folder(modules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it prints does not get into a command's answer."""
    path = list(sys.path)
    assert isinstance(find_module("good_net:net"), nn.Conv2d)
    assert capsys.readouterr() == ("", "hello\n") and sys.path == path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torchvision:resnet81", "no classification model 'resnet81' .did you mean 'resnet18'"),
        ("torchvision:zzz", r"no classification model 'zzz' .torchvision.models.list_models.. lists them"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classification model"),
        ("nowhere.at:all", "MODULE:CALLABLE, found 'nowhere.at:all', and no module nowhere here"),
        ("tests.mtan_core.test_backbone:Plian", "has no 'Plian' .did you mean 'Plain'"),
        ("broken_net:net", "expected to import broken_net, found ZeroDivisionError: division by zero"),
        ("leaving_net:net", "expected to import leaving_net, found SystemExit: 3"),
        ("unfit_net:net", "expected to import unfit_net, found ModuleNotFoundError: No module named 'a_package_that"),
        ("odd_net:number", r"expected that odd_net:number.. returns a torch.nn.Module, found int"),
        ("odd_net:fails", r"expected that odd_net:fails.. makes a network, found TypeError: fails.. missing 1"),
        ("odd_net:leaves", "makes a network, found SystemExit: 1"),
        ("odd_net:value", "makes a network, found TypeError: 'int' object is not callable"),
    ],
)
def test_names_that_lead_to_no_network_are_refused(modules: Path, name: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        find_module(name)
    assert len(str(refused.value)) < 400


def test_timm_s_names() -> None:
    pytest.importorskip("timm", reason="needs the extra `timm`")
    with pytest.raises(UserError, match=r"timm has no model 'resnte18' .did you mean '.*resnet18'"):
        find_module("timm:resnte18")
    with pytest.raises(UserError, match=r"for images of 24 pixels .`image_size`., found one that fails: Input height"):
        Backbone(find_module("timm:test_vit"), (), "domain", 24)
