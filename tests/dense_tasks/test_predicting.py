"""Dense runs look at image files, and the authors' networks become runs that answer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dense_tasks import load_run
from tests.conftest import Mtan, Outcome, document
from tests.dense_tasks.test_runs_commands import refused

SEGNETS = {
    "cross": "cross-stitch", "dense": "dense", "mtan": "mtan", "single_depth": "single", "split_deep": "split-deep",
    "split_standard": "split-standard", "split_wide": "split-wide", "stan_normal": "stan", "stan_semantic": "stan",
}  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two images, of which one lies deeper, and a file that is none."""
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (50, 70)), ("deeper/b.jpg", (32, 64))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def png_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_files_and_folders_are_drawn(mtan: Mtan, trained: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = document(mtan("dense", "predict", trained, images, "--out", out, "--masks", "--json"))
    assert [each["image"] for each in told] == [str(images / "a.png"), str(images / "deeper/b.jpg")]
    assert [each["size"] for each in told] == [[32, 64], [32, 64]]
    assert sorted(path.name for path in out.iterdir()) == ["a-masks.png", "a.png", "b-masks.png", "b.png"]
    assert {path for each in told for path in (each["figure"], each["masks"])} == {str(path) for path in out.iterdir()}
    assert all(min(png_size(path)) > 100 for path in out.iterdir())
    shown = mtan("dense", "predict", trained, images / "a.png", "--out", out)
    assert shown.code == 0 and shown.out == f"{images / 'a.png'}: {out / 'a.png'}\n"


def test_the_images_of_a_root_are_drawn_too(mtan: Mtan, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "image"
    folder.mkdir()
    shades = np.random.default_rng(0).random((32, 64, 3))
    np.save(folder / "0.npy", shades.astype(np.float16))
    np.save(folder / "1.npy", (shades * 255).astype(np.int64))
    told = document(mtan("dense", "predict", trained, folder, "--out", tmp_path / "out", "--json"))
    assert [each["image"] for each in told] == [str(folder / "0.npy"), str(folder / "1.npy")]
    for name, array, words in (
        ("labels", np.zeros((32, 64)), "an image of shape 32x64 instead of HxWx3"),
        ("normals", shades - 1, "image values from"),
        ("objects", np.array([{"a": 1}], dtype=object), "Python objects, which are never loaded"),
    ):
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
        refused(predicting(mtan, trained, tmp_path / "none", tmp_path / f"{name}.npy"), words, f"{name}.npy")


def predicting(mtan: Mtan, run: Path, out: Path, *words: object) -> Outcome:
    outcome = mtan("dense", "predict", run, *words, "--out", out)
    assert not out.exists()
    return outcome


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    mtan: Mtan, trained: Path, split: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    refused(
        predicting(mtan, trained, out, images / "a.png", images / "notes.txt"),
        "notes.txt (of no image format that is known)",
    )
    refused(predicting(mtan, trained, out, images / "a.png", images / "absent.png"), "absent.png")
    (tmp_path / "half.png").write_bytes((images / "a.png").read_bytes()[:2000])
    refused(predicting(mtan, trained, out, images / "a.png", tmp_path / "half.png"), "half.png")
    (tmp_path / "empty").mkdir()
    refused(predicting(mtan, trained, out, tmp_path / "empty"), "image files", str(tmp_path / "empty"))
    (tmp_path / "a.jpg").write_bytes((images / "deeper/b.jpg").read_bytes())
    refused(predicting(mtan, trained, out, images, tmp_path / "a.jpg"), "different names", "a.jpg")
    (tmp_path / "a-masks.png").write_bytes((images / "a.png").read_bytes())
    refused(predicting(mtan, trained, out, images, tmp_path / "a-masks.png", "--masks"), "a-masks.png")
    refused(predicting(mtan, split, out, images, "--masks"), "attention masks")


def test_no_image_is_overwritten(mtan: Mtan, trained: Path, images: Path, tmp_path: Path) -> None:
    before = (images / "a.png").read_bytes()
    refused(mtan("dense", "predict", trained, images / "a.png", "--out", images), "--out", "a.png")
    assert (images / "a.png").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    refused(mtan("dense", "predict", trained, images, "--out", tmp_path / "file"), "--out: expected a folder")


# The authors' networks


@pytest.mark.shared
@pytest.mark.parametrize("name", SEGNETS)
def test_an_imported_run_answers_as_the_authors_network(mtan: Mtan, shared: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    file = shared / "golden" / f"segnet_a_{name}.pth"
    summary = document(mtan("dense", "import-weights", file, "--run", run, "--json"))
    assert summary["method"] == SEGNETS[name] and summary["imported"] == file.name
    assert {"format": 1, "finished": True, **summary} == json.loads((run / "summary.json").read_text())
    golden = np.load(file.with_suffix(".npz"))
    with torch.inference_mode():
        outputs = load_run(run).network(torch.from_numpy(golden["x"]))
    assert list(outputs) == summary["tasks"] and len(outputs) == len(golden.files) - 1
    for place, (task, output) in enumerate(outputs.items()):
        found, wanted = output.numpy(), golden[f"y{place}"]
        if task == "semantic":
            found = torch.log_softmax(output, 1).numpy()  # theirs are log-probabilities
        known = np.isfinite(wanted)  # where a raw normal is zero, the authors divide by zero
        np.testing.assert_allclose(found[known], wanted[known], rtol=0, atol=1e-5)


@pytest.mark.shared
def test_an_imported_run_is_evaluated_and_draws(
    mtan: Mtan, shared: Path, root: Path, images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("dense", "import-weights", shared / "golden/segnet_a_mtan.pth", "--run", run)
    outcome = mtan(*words)
    assert outcome.code == 0 and "mtan on SegNet 4-8-8-12-12, tasks semantic, depth, normal" in outcome.out
    refused(mtan(*words), "--run: expected a new folder")
    told = document(mtan("dense", "evaluate", run, "--data", root, "--json"))
    assert set(told["tasks"]) == {"semantic", "depth", "normal"}
    (drawn,) = document(mtan("dense", "predict", run, images / "a.png", "--out", tmp_path / "out", "--masks", "--json"))
    assert drawn["size"] == [64, 64] and Path(drawn["figure"]).exists() and Path(drawn["masks"]).exists()
    refused(mtan("dense", "evaluate", run, "--data", root, "--checkpoint", "best"), "--checkpoint best")


def test_what_is_no_checkpoint_of_theirs_is_not_imported(mtan: Mtan, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(2)}, file)
    refused(mtan("dense", "import-weights", file, "--run", tmp_path / "run"), "authors' SegNets")
    assert not (tmp_path / "run").exists()
