"""The generated miniature: official layout, determinism, what it says of itself, and how hard it is for simple methods."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression

from decathlon.miniature import write_miniature
from decathlon.miniature.digits import sources
from decathlon.miniature.sample import SPLITS
from decathlon.miniature.writer import KINDS
from decathlon.specs import official_domains
from mtan_core.errors import UserError
from tests.conftest import Outcome

NAMES = list(official_domains())
Split = tuple[NDArray[np.float64], NDArray[np.int64]]  # pixels (n, 72, 72, 3) in [0, 1], labels (n,)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole miniature of seed 0."""
    folder = tmp_path_factory.mktemp("generated") / "miniature"
    write_miniature(folder)
    return folder


def annotations(root: Path, name: str, split: str) -> dict[str, Any]:
    """A labelled annotation document."""
    folder = "annotations_hidden" if split == "test" else "annotations"
    return json.loads((root / folder / f"{name}_{split}.json").read_text())


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_names_are_the_official_ones(root: Path, name: str) -> None:
    base = official_domains()[name].number * 10**7
    place = 0
    for split in SPLITS:
        document = annotations(root, name, split)
        counts: Counter[int] = Counter()
        for image, label in zip(document["images"], document["annotations"], strict=True):
            place += 1
            assert image["id"] == label["id"] == label["image_id"] == base + 200_000 + place
            counts[label["category_id"] - base] += 1
            folder = "" if split == "test" else f"{label['category_id'] - base:04d}/"
            number = sum(counts.values()) if split == "test" else counts[label["category_id"] - base]
            assert image["file_name"] == f"data/{name}/{split}/{folder}{number:06d}.jpg"
        categories = document["categories"]
        assert [c["id"] for c in categories] == list(range(base + 1, base + 1 + len(categories)))
        assert [c["name"] for c in categories] == sorted({c["name"] for c in categories})
        assert counts == dict.fromkeys(range(1, len(categories) + 1), KINDS[name].images(split))


@pytest.mark.parametrize("name", NAMES)
def test_test_labels_are_hidden(root: Path, name: str) -> None:
    stripped = json.loads((root / "annotations" / f"{name}_test_stripped.json").read_text())
    labelled = annotations(root, name, "test")
    assert not (root / "annotations" / f"{name}_test.json").exists()
    assert {**stripped, "annotations": labelled["annotations"]} == labelled
    labels = [label["category_id"] for label in labelled["annotations"]]
    assert labels != sorted(labels), "the order of test files tells their classes"


@pytest.mark.parametrize("name", NAMES)
def test_images_are_as_annotated(root: Path, name: str) -> None:
    sizes = set()
    for split in SPLITS:
        listed = annotations(root, name, split)["images"]
        assert {image["file_name"] for image in listed} == {
            str(path.relative_to(root)) for path in (root / "data" / name / split).rglob("*.jpg")
        }
        for image in listed:
            with Image.open(root / image["file_name"]) as file:
                assert file.size == (image["width"], image["height"])
                assert file.mode == "RGB"
            assert min(file.size) == 72
            sizes.add(file.size)
    square = {"cifar100", "omniglot", "svhn", "ucf101"}
    assert (sizes == {(72, 72)}) == (name in square)
    if name == "daimlerpedcls":
        assert sizes == {(72, 144)}


def test_as_many_classes_and_images_as_promised() -> None:
    for name, kind in KINDS.items():
        assert len(kind.classes) == 2 if name == "daimlerpedcls" else 8 <= len(kind.classes) <= 20
        assert 30 <= kind.train <= 60


def test_no_image_is_there_twice(root: Path) -> None:
    counts = Counter(digests(root / "data").values())
    assert [digest for digest, count in counts.items() if count > 1] == []


def test_everything_says_that_it_is_the_miniature(root: Path) -> None:
    for path in [*(root / "annotations").iterdir(), *(root / "annotations_hidden").iterdir()]:
        assert json.loads(path.read_text())["info"]["description"] == "Decathlon miniature (generated)"
    readme = (root / "README.txt").read_text()
    assert "MINIATURE" in readme
    assert "NOT comparable" in readme


def test_the_seed_alone_decides(tmp_path: Path, root: Path) -> None:
    summary = write_miniature(tmp_path / "again", domains=["daimlerpedcls"], workers=1)
    assert summary == {"daimlerpedcls": {"classes": 2, "train": 120, "val": 80, "test": 120}}
    again = digests(tmp_path / "again")
    assert again == {name: digest for name, digest in digests(root).items() if name in again}
    write_miniature(tmp_path / "other", seed=1, domains=["daimlerpedcls"], workers=1)
    other = digests(tmp_path / "other")
    assert other.keys() == again.keys()
    assert not set(other.values()) & set(again.values())


def test_no_handwritten_digit_serves_two_splits() -> None:
    seen: set[bytes] = set()
    for split in SPLITS:
        own = {image.tobytes() for images in sources(0, split).values() for image in images}
        assert len(own) > 250
        assert not own & seen
        seen |= own


def crop(image: Image.Image, fit: str) -> Image.Image:
    """A square of 24x24: the middle of the image, or all of it squashed."""
    if fit == "crop":
        left, top = (image.width - 72) // 2, (image.height - 72) // 2
        image = image.crop((left, top, left + 72, top + 72))
    return image.resize((24, 24), Image.Resampling.BOX)


def pixels(root: Path, name: str, split: str) -> Split:
    document, spec = annotations(root, name, split), official_domains()[name]
    images = [crop(Image.open(root / image["file_name"]), spec.fit) for image in document["images"]]
    labels = [label["category_id"] - spec.number * 10**7 - 1 for label in document["annotations"]]
    return np.stack([np.asarray(image) for image in images]) / 255, np.array(labels)


def logistic_regression(train: Split, test: Split) -> float:
    """Test accuracy; other strengths of regularisation, and all 72x72 pixels, come out about alike."""
    flat = [images.reshape(len(images), -1) for images in (train[0], test[0])]
    model = LogisticRegression(C=0.1, max_iter=100, tol=1e-3)  # type: ignore[no-untyped-call]
    return float(model.fit(flat[0], train[1]).score(flat[1], test[1]))


def nearest_mean_colour(train: Split, test: Split) -> float:
    colours, seen = train[0].mean((1, 2)), test[0].mean((1, 2))
    means = np.stack([colours[train[1] == label].mean(0) for label in np.unique(train[1])])
    nearest = ((seen[:, None] - means) ** 2).sum(-1).argmin(1)
    return float((nearest == test[1]).mean())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_it_is_not_easy(root: Path) -> None:
    regression, colour = {}, {}
    for name in NAMES:
        train, test = pixels(root, name, "train"), pixels(root, name, "test")
        regression[name] = logistic_regression(train, test)
        colour[name] = nearest_mean_colour(train, test)
    print("logistic regression:", regression, "nearest mean colour:", colour)
    assert np.mean(list(regression.values())) <= 0.55, regression
    assert max(accuracy for name, accuracy in colour.items() if len(KINDS[name].classes) >= 8) <= 0.35, colour


def test_mistakes_are_told_before_anything_is_written(tmp_path: Path, mtan: Callable[..., Outcome]) -> None:
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    file.write_text("mine")
    for words, told in (
        ([full], f"'{full}' with something in it"),
        ([file], f"the file '{file}'"),
        ([tmp_path / "new", "--domains", "svnh"], "did you mean 'svhn'?"),
        ([tmp_path / "new", "--seed", "-1"], "expected 0 or more, found -1"),
    ):
        outcome = mtan("decathlon", "miniature", *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert told in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    with pytest.raises(UserError, match="new or empty folder"):
        write_miniature(full)


def test_the_command_fills_an_empty_folder_and_reports(tmp_path: Path, mtan: Callable[..., Outcome]) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    outcome = mtan("decathlon", "miniature", folder, "--domains", "daimlerpedcls", "--seed", 3, "--json")
    assert outcome.code == 0
    report = json.loads(outcome.out)
    assert report["domains"] == {"daimlerpedcls": {"classes": 2, "train": 120, "val": 80, "test": 120}}
    assert (report["seed"], report["source"]) == (3, "miniature")
    assert (folder / "annotations" / "daimlerpedcls_train.json").is_file()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_it_leaves_nothing_that_looks_complete(tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "miniature"
    run = "from experiments.cli import main; main()"
    command = [sys.executable, "-c", run, "decathlon", "miniature", str(folder)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    try:
        while not any(tmp_path.rglob("*.jpg")):
            assert process.poll() is None, "ended before it could be interrupted"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, how)
    assert process.wait(timeout=30) != 0
    assert not folder.exists()
    if how is signal.SIGINT:
        assert list(tmp_path.iterdir()) == []
