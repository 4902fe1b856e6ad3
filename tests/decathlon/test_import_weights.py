"""The authors' checkpoints, proved on outputs of the authors' own network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from decathlon.building import build_network
from decathlon.config import load_config
from decathlon.import_weights import (
    authors_names,
    authors_order,
    import_weights,
    imported_network,
    read_state_dict,
    rename,
)
from decathlon.runs import load_run
from decathlon.specs import official_domains
from experiments.bench.plain import PlainMtan
from mtan_core.errors import UserError


@pytest.fixture
def golden(shared: Path) -> Path:
    return shared / "golden" / "wrn_mtan_10_1.pth"


@pytest.mark.shared
def test_imported_run_answers_as_the_authors_network(golden: Path, tmp_path: Path) -> None:
    summary = import_weights(golden, tmp_path / "run")
    assert (summary["depth"], summary["width"]) == (10, 1)
    run = load_run(tmp_path / "run", device="cpu")
    outputs = np.load(golden.with_suffix(".npz"))
    for side in (64, 72):
        images = torch.from_numpy(outputs[f"x{side}"])
        for place, domain in enumerate(authors_order()):
            assert run.spec(domain).classes == outputs["classes"][place]
            with torch.inference_mode():
                answer = run.network(images, domain).softmax(1).numpy()
            np.testing.assert_allclose(answer, outputs[f"p{side}_{place}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("depth", "width"), [(10, 2), (16, 1), (22, 3)])
def test_other_depths_widths_and_class_counts(depth: int, width: int) -> None:
    torch.manual_seed(0)
    classes = [3 + place for place in range(len(authors_order()))]
    plain = PlainMtan(classes, depth, width).eval()
    network, config, specs = imported_network(plain.state_dict(), "here")
    assert (config.network.depth, config.network.width) == (depth, width)
    counts = {spec.name: spec.classes for spec in specs}
    images = torch.randn(2, 3, 72, 72)
    with torch.inference_mode():
        for place, domain in enumerate(authors_order()):
            assert counts[domain] == classes[place]
            torch.testing.assert_close(network.eval()(images, domain), plain(images, place), rtol=0, atol=1e-4)


def test_the_paper_preset_has_the_published_number_of_parameters() -> None:
    network = build_network(load_config("paper", None), {n: d.classes for n, d in official_domains().items()})
    assert sum(p.numel() for p in network.parameters()) == 10_237_656
    assert sum(p.numel() for p in network.pool.parameters()) == 5_850_528
    for domain, parameters in network.parameter_groups().items():
        if domain != "shared":
            head = 257 * official_domains()[domain].classes
            assert sum(p.numel() for p in parameters.values()) == 261_344 + head


def test_a_file_that_does_not_fit_is_refused_with_all_names(tmp_path: Path) -> None:
    state = PlainMtan([2] * 10, 10, 1).state_dict()
    state["surprise"] = torch.zeros(1)
    del state["conv1.bias"]
    state["bn1.weight"] = torch.zeros(7)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(UserError) as refusal:
        import_weights(tmp_path / "weights.pth", tmp_path / "run")
    for word in ("missing", "conv1.bias", "extra", "surprise", "mis-shaped", "(7,)"):
        assert word in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_nothing_is_executed_on_reading(tmp_path: Path) -> None:
    class Surprise:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "executed"),))

    torch.save({"a": Surprise()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="plain tensors, found objects that only running"):
        read_state_dict(tmp_path / "weights.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "an empty file"), (b"not a checkpoint", "a file of another kind"), (b"PK\x03\x04 cut off", "a damaged one")],
)
def test_what_is_no_checkpoint_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=f"state dict of plain tensors, found {told}"):
        read_state_dict(tmp_path / "weights.pth")


def test_a_harmed_checkpoint_is_refused_or_read(tmp_path: Path) -> None:
    """Whatever the unpickler runs into: of these files, cut and changed anywhere, some raise IndexError or TypeError."""
    refused, file = 0, tmp_path / "weights.pth"
    for modern in (True, False):
        torch.save({"conv1.bias": torch.zeros(3)}, file, _use_new_zipfile_serialization=modern)
        whole, generator = file.read_bytes(), np.random.default_rng(0)
        for turn in range(150):
            content = bytearray(whole)
            place = int(generator.integers(min(len(content), 400)))
            content[place] = int(generator.integers(256))
            file.write_bytes(content[:place] if turn % 10 == 0 else content)
            try:
                read_state_dict(file)
            except UserError:
                refused += 1
    assert refused > 50


@pytest.mark.parametrize("document", [{3: torch.zeros(1)}, {"a": 1}, [torch.zeros(1)], {"model_state_dict": {3: 4}}])
def test_what_is_no_state_dict_is_refused(document: object, tmp_path: Path) -> None:
    torch.save(document, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="state dict"):
        read_state_dict(tmp_path / "weights.pth")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = PlainMtan([2] * 10, 10, 1).state_dict()
    state["bn1.weight"][3] = float("nan")
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"found NaN or infinity in bn1\.weight"):
        read_state_dict(tmp_path / "weights.pth")


def test_every_name_of_ours_is_one_of_the_authors() -> None:
    state = PlainMtan([2] * 10, 16, 1).state_dict()
    network, config, _ = imported_network(state, "file")
    theirs = authors_names(config.network.depth, authors_order())
    assert {theirs[name] for name in network.state_dict()} == {n for n in state if "num_batches" not in n}


def test_unknown_names_stay_as_they_are() -> None:
    assert rename("surprise", authors_order()) == "surprise"
