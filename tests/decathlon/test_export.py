"""`export`: one domain's network alone, the same answers, nothing left behind where they differ."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import decathlon
from decathlon.building import build_network
from decathlon.config import load_config
from decathlon.export import TOLERANCE, export_domain
from decathlon.prediction import preprocess, read_image, square
from decathlon.single import SingleNetwork, united
from decathlon.specs import DomainSpec
from decathlon.views import normalise
from experiments.cli import app
from mtan_core.convs import KINDS, ConvKind, make_conv
from mtan_core.errors import UserError
from mtan_core.images import find_images
from mtan_core.network import AttentionNetwork
from mtan_core.segments import Segments
from tests.decathlon.conftest import TINY, Tiny
from tests.test_command import Mtan, refused

onnx = pytest.importorskip("onnx", reason="needs the extra `export`")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")

SPEC = DomainSpec("dtd", 4, ("a", "b", "c"), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), True, "crop")


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A file that the command wrote, and what it said of it."""
    out = tmp_path_factory.mktemp("exported") / "new" / "ped.onnx"
    words = ["decathlon", "export", str(trained), "--domain", "daimlerpedcls", "--out", str(out), "--json"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        app(words, standalone_mode=False)
    return out, json.loads(printed.getvalue())


def unlike(network: AttentionNetwork) -> AttentionNetwork:
    """The network with random scales, shifts and statistics, so that no batch norm is the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.3)
    return network.eval()


@pytest.mark.parametrize(
    "changes",
    [(), ("norm=statistics",), ("norm=shared",), ("network.mask_activation=softmax_channels",),
     ("network.mask_activation=softmax_pixels",), ("network.mask_activation=ones",), ("network.head_pool=8x8", "image_size=72"),
     ("method=hard-sharing",), ("method=scratch",), ("method=mtan+parallel", "pool_from=any")],
    ids=lambda words: " ".join(words) or "default",
)  # fmt: skip
def test_the_network_alone_answers_as_the_whole(changes: tuple[str, ...]) -> None:
    config = load_config("quickstart", None, [*TINY, *changes])
    network = unlike(build_network(config, {"svhn": 4, "dtd": 3}))
    if config.norm == "shared":
        network.own_statistics("dtd")
        unlike(network)
    size = config.image_size
    pixels = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    single = SingleNetwork(network, SPEC)
    with torch.inference_mode():
        expected = network(normalise(pixels, SPEC), "dtd").softmax(1)
        torch.testing.assert_close(single(pixels), expected, rtol=1e-4, atol=1e-6)
    assert expected.std() > 1e-3  # answers differ between classes and images, or there would be nothing to compare
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not [name for name, _ in single.named_parameters() if "svhn" in name]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2)])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_convolution_and_its_own_part_become_one(kind: ConvKind, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = make_conv(kind, 3, 5, kernel, stride=stride, padding=kernel // 2)
    conv.add_task("dtd")
    for parameter in conv.parameters():
        nn.init.normal_(parameter)
    images = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        expected = conv(images, Segments(("dtd",), (2,)))
        torch.testing.assert_close(
            united(conv, "dtd")(images, Segments(("dtd",), (2,))), expected, rtol=1e-4, atol=1e-5
        )


def test_the_file_answers_as_the_run_for_any_batch(
    challenge: Tiny, trained: Path, exported: tuple[Path, dict[str, Any]]
) -> None:
    out, written = exported
    run = decathlon.load_run(trained)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [24, 24, 3])
    assert (made.name, made.shape[1:]) == ("probabilities", [2])
    files = find_images([challenge.root / "data" / "daimlerpedcls" / "test"])
    spec, fit = run.spec("daimlerpedcls"), run.fit("daimlerpedcls")
    pixels = np.concatenate([square(read_image(f), fit, 24, run.device).round().byte().numpy() for f in files])
    seen = torch.cat([preprocess(read_image(f), spec, fit, 24) for f in files])
    with torch.inference_mode():
        expected = run.network(seen, "daimlerpedcls").softmax(1).numpy()
    for size in (1, 3, len(files)):
        answers = session.run(["probabilities"], {"images": pixels[:size]})[0]
        np.testing.assert_allclose(answers, expected[:size], rtol=0, atol=1e-5)
    assert written["largest_difference"] <= TOLERANCE


def test_batch_norms_are_folded_where_they_can_be(exported: tuple[Path, dict[str, Any]]) -> None:
    out, written = exported
    model = onnx.load(out)
    kinds = [node.op_type for node in model.graph.node]
    # left are the first norm of each of three blocks, behind a sum or a tap, and the pool's last
    assert kinds.count("BatchNormalization") == 4
    assert kinds.count("Conv") == 1 + 3 * 3 + 4 * 3
    assert written["parameters"] == sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def test_sizes_and_speeds_are_told(trained: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    out, written = exported
    assert (written["domain"], written["classes"], written["image_size"]) == ("daimlerpedcls", 2, 24)
    assert written["bytes"] == out.stat().st_size
    assert written["full_parameters"] == sum(p.numel() for p in decathlon.load_run(trained).network.parameters())
    assert written["parameters"] < written["full_parameters"]
    assert written["images_per_second"] > 0 and written["full_images_per_second"] > 0


def test_the_file_says_what_it_is_and_not_where_it_was_made(exported: tuple[Path, dict[str, Any]]) -> None:
    out, _ = exported
    model = onnx.load(out)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["domain"] == "daimlerpedcls" and told["fit"] == "squash" and told["image_size"] == "24"
    assert json.loads(told["class_names"]) == ["kind0", "kind1"]
    assert str(Path.cwd()).encode() not in out.read_bytes()
    assert [file.name for file in out.parent.iterdir()] == ["ped.onnx"]


def test_a_file_that_exists_is_refused(mtan: Mtan, trained: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    out, _ = exported
    whole = out.read_bytes()
    again = mtan("decathlon", "export", trained, "--domain", "dtd", "--out", out)
    refused(again, "--out: expected the name of a new file, found one that exists", str(out))
    assert out.read_bytes() == whole


def test_mistakes_leave_nothing(mtan: Mtan, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*words: str, domain: str = "dtd", out: str = "x.onnx") -> None:
        refused(mtan("decathlon", "export", trained, "--domain", domain, "--out", tmp_path / out), *words)
        assert list(tmp_path.iterdir()) == []

    told("no domain 'dtdd'", "did you mean 'dtd'?", domain="dtdd")
    told("ends in .onnx", out="x.pth")
    told("expected the name of a new file", out="")
    monkeypatch.setattr("decathlon.export.PACKAGES", ("onnx", "a_package_that_nobody_has"))
    told("found no a_package_that_nobody_has", "pip install 'mtan-decathlon[export]'")


def test_answers_that_differ_are_refused_and_nothing_is_left(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for file in run.glob("checkpoints/*/weights.safetensors"):
        weights = load_file(file)
        weights["heads.dtd.weight"][0, 0] = float("nan")
        save_file(weights, file)
    with pytest.raises(UserError, match=r"expected onnxruntime to answer as the run does, .*was not written"):
        export_domain(decathlon.load_run(run), "dtd", tmp_path / "out" / "x.onnx")
    assert list((tmp_path / "out").iterdir()) == []
