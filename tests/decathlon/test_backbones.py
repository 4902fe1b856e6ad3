"""Any backbone trains, resumes, answers, is extended and exported as the Wide ResNet is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decathlon.building import build_network, parameter_counts
from decathlon.config import load_config
from decathlon.runs import RunFolder, load_run
from mtan_core.backbone import Backbone
from mtan_core.checkpoint import read_tensors
from mtan_core.errors import Interrupted, UserError
from mtan_core.transfer import take_pool
from tests.conftest import Mtan, document
from tests.decathlon.conftest import COLOURS, DOMAINS, Tiny, tiny, train_tiny, write_picture
from tests.test_command import refused

SHORT = "phases=[{epochs = 1}]"  # of four steps
OWN = f"{__name__}:Windows"
# a pool with its `norm`: networks with batch norms, with timm's batch norms that hold activations, with layer norms, and one's own
RUNS = {
    "mobilenet": ("pool=torchvision:mobilenet_v3_small", "network.nodes=features.0,features.1,features.3"),
    "byobnet": ("pool=timm:test_byobnet", "network.nodes=stem,stages.0,stages.1", "norm=shared"),
    "convnext": ("pool=timm:test_convnext", "network.nodes=stages.0,stages.1,stages.2", "norm=statistics"),
    "own": (f"pool={__name__}:Trunk",),
}


class Windows(nn.Module):
    """A network of a user's own: functional dropout, an operation in place, maps with channels last, a table of whole numbers."""

    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.merge = nn.Linear(4 * 8, 12)
        self.norm = nn.LayerNorm(12)
        self.scale = nn.Parameter(torch.full((12,), 0.5))
        self.register_buffer("order", torch.arange(11, -1, -1))
        self.last = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.classifier = nn.Linear(16 * 7 * 7, 10)  # for images of 28 pixels only

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = torch.cat([x[:, :, 0::2, 0::2], x[:, :, 1::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 1::2]], 1)
        x = self.norm(self.merge(x.permute(0, 2, 3, 1)))
        x = F.dropout((x * self.scale)[..., self.order], 0.5, self.training)
        return self.classifier(self.last(x.permute(0, 3, 1, 2)).flatten(1))


class Trunk(Windows):
    """Without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Identity()  # type: ignore[assignment]


@pytest.fixture(scope="module")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaves")
    for place, name in enumerate(("ash", "elm")):
        for i in range(6):
            write_picture(folder / name / f"{i}.jpg", 72, 80, COLOURS[place], seed=100 * place + i)
    return folder


@pytest.fixture(scope="module")
def run(challenge: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A finished run on each backbone, made when it is first asked for."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "run"
            train_tiny(challenge.store, made[name], *RUNS[name], SHORT)
        return made[name]

    return find


def weights_of(run: Path) -> dict[str, Tensor]:
    return read_tensors(RunFolder(run).checkpoint(), "weights")


@pytest.mark.parametrize("name", RUNS)
def test_stopped_and_gone_on_with_it_ends_as_the_unbroken_run(
    challenge: Tiny, run: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    if "timm" in RUNS[name][0]:
        pytest.importorskip("timm", reason="needs the extra `timm`")
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        train_tiny(challenge.store, tmp_path / "broken", *RUNS[name], SHORT, stop=lambda: next(asked))
    train_tiny(challenge.store, tmp_path / "broken", *RUNS[name], SHORT, resume=True)
    whole, broken = weights_of(run(name)), weights_of(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    assert [key for key, value in whole.items() if not torch.equal(value, broken[key])] == []
    start = build_network(RunFolder(run(name)).config(), dict.fromkeys(DOMAINS, 3)).state_dict()
    pool = {key: value for key, value in start.items() if key.startswith("pool.")}
    still = {key for key, value in pool.items() if torch.equal(value, whole[key])}
    # what ConvNeXt scales by 1e-6 at first moves a layer norm's 1 by less than a digit
    assert {key for key in still if not key.endswith(".norm.weight")} <= {"pool.body.order"}


@pytest.mark.parametrize("name", RUNS)
def test_it_answers_is_extended_and_goes_away_as_any_other(
    mtan: Mtan, challenge: Tiny, run: Callable[[str], Path], leaves: Path, name: str, tmp_path: Path
) -> None:
    if "timm" in RUNS[name][0]:
        pytest.importorskip("timm", reason="needs the extra `timm`")
    source = run(name)
    evaluated = document(mtan("decathlon", "evaluate", source, "--data", challenge.store, "--json"))
    assert set(evaluated["domains"]) == set(DOMAINS)
    results = tmp_path / "results.json"
    assert mtan("decathlon", "submit", source, "--data", challenge.store, "--out", results).code == 0
    assert len(json.loads(results.read_text())) == 10 * len(DOMAINS)
    images = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    network = load_run(source).network
    with torch.inference_mode():
        masks = network.masks(images, "dtd")
        before = {domain: network(images, domain) for domain in DOMAINS}
    assert [mask.shape[1] for mask in masks] == [stage.features for stage in network.pool.stages]  # type: ignore[union-attr]
    added = [
        "leaves",
        "--images",
        leaves,
        "--run",
        tmp_path / "new",
        "--set",
        "phases.0.epochs=1",
        "--set",
        "steps_per_epoch=2",
    ]
    made = document(mtan("decathlon", "add-domain", source, *added, "--json"))
    extended = load_run(tmp_path / "new").network
    with torch.inference_mode():
        assert all(torch.equal(extended(images, domain), logits) for domain, logits in before.items())
    assert made["others_unchanged"] and extended(images, "leaves").shape == (4, 2)


@pytest.mark.parametrize("name", RUNS)
def test_its_network_of_one_domain_is_an_onnx_file(
    mtan: Mtan, run: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    if "timm" in RUNS[name][0]:
        pytest.importorskip("timm", reason="needs the extra `timm`")
    written = document(
        mtan("decathlon", "export", run(name), "--domain", "svhn", "--out", tmp_path / "x.onnx", "--json")
    )
    assert written["largest_difference"] <= 1e-4 and (tmp_path / "x.onnx").stat().st_size == written["bytes"]


@pytest.mark.parametrize("method", ["feature", "bn"])
def test_methods_begin_with_a_trained_backbone(
    challenge: Tiny, run: Callable[[str], Path], method: str, tmp_path: Path
) -> None:
    """Everything of the pool is taken, the layers that are no convolutions too, and stands still."""
    source = run("own")
    train_tiny(challenge.store, tmp_path / "run", *RUNS["own"], f"method={method}", f"pool_from={source}", SHORT)
    taken, found = weights_of(source), weights_of(tmp_path / "run")
    shared = [key for key in found if key.startswith("pool.") and ".affine." not in key and ".statistics." not in key]
    assert "pool.body.merge.weight" in shared and all(torch.equal(found[key], taken[key]) for key in shared)


def test_a_backbone_keeps_the_weights_it_comes_with() -> None:
    """Where wanted, convolutions of ours begin as He et al. have it; a network of the user's own may be trained already."""
    config = load_config("quickstart", None, [f"pool={__name__}:Trunk", "network.init=he"])
    torch.manual_seed(config.seed)
    expected = Trunk().last.weight
    network = build_network(config, {"dtd": 3})
    found = dict(network.named_parameters())
    assert torch.equal(found["pool.body.last.weight"], expected)
    assert not found["ladder.stages.0.conv.bias"].any()


def test_a_pool_of_another_backbone_is_not_taken(run: Callable[[str], Path]) -> None:
    network = build_network(load_config("quickstart", None, [f"pool={__name__}:Trunk"]), {"dtd": 3})
    weights = {key: value for key, value in weights_of(run("own")).items() if not key.endswith("merge.weight")}
    with pytest.raises(UserError, match=r"with pool\.body\.merge\.weight of shape \(12, 32\), found none"):
        take_pool(network, weights, "source")


def test_what_cannot_be_is_refused_before_anything_is_written(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    def told(pool: str, *words: str, nodes: str = "") -> None:
        changes = tiny(f"pool={pool}", *([f"network.nodes={nodes}"] if nodes else []))
        for more in ((), ("--dry-run",)):
            refused(
                mtan("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "run", *changes, *more),
                *words,
            )
        assert not list(tmp_path.iterdir())

    told("torchvision:resnet81", "no classification model 'resnet81'", "did you mean")
    told("resnet18", "expected wrn, resnet26, torchvision:NAME")
    told("nowhere:net", "MODULE:CALLABLE, found 'nowhere:net'", "no module nowhere")
    told("torchvision:vit_b_16", "for images of 24 pixels", "Expected 224 but got 24")
    told(OWN, "fails", "name those by `network.nodes`")
    told(f"{__name__}:Trunk", "no node 'stme' with a map (did you mean 'stem'?)", "stem.2 8x24x24", nodes="stme,last")
    told(f"{__name__}:Trunk", "whole factors, found last of 6x6 before norm of 12x12", nodes="stem,last,norm")


def test_a_dry_run_counts_what_is_built(challenge: Tiny, mtan: Mtan, tmp_path: Path) -> None:
    words = [
        "decathlon",
        "train",
        "--data",
        challenge.store,
        "--run",
        tmp_path / "run",
        *tiny(RUNS["own"][0]),
        "--dry-run",
        "--json",
    ]
    cost = document(mtan(*words))
    network = build_network(
        load_config("quickstart", None, list(RUNS["own"])), {"daimlerpedcls": 2, "dtd": 3, "svhn": 3}
    )
    assert cost["parameters"] == parameter_counts(network)["parameters"]
    pool = network.pool
    assert isinstance(pool, Backbone) and pool.nodes == ["stem.2", "permute_1", "last"]
