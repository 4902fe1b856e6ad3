"""A tiny challenge and its store, made once for all tests that train."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from decathlon.config import load_config
from decathlon.data.prepare import prepare
from decathlon.training import train

COLOURS = ((220, 60, 40), (40, 190, 80), (60, 80, 210))
DOMAINS = {"daimlerpedcls": 3, "dtd": 4, "svhn": 8}  # two mirrored domains, one of them not square, and one that is not
SIZES = {"train": 27, "val": 12, "test": 10}
# The smallest network and the shortest run; threads = 1 so that a run can be continued bit for bit.
TINY = (
    "seed=3", "threads=1", "device=cpu", "precision=fp32", "batch_size=8", "image_size=24", "network.depth=10",
    "network.width=1", "optimizer.warmup=0", "phases=[{epochs = 2}]",
)  # fmt: skip
TRAINED = ("phases=[{epochs = 4}]", "ema=0.5")
SHARED_NORM = ("norm=shared", "phases=[{epochs = 4}]")


def tiny(*changes: str) -> list[str]:
    """The words that make a preset tiny, for `mtan decathlon train`."""
    return ["--preset", "quickstart", *(word for change in (*TINY, *changes) for word in ("--set", change))]


@dataclass(frozen=True)
class Tiny:
    """Folders of the tiny challenge."""

    root: Path
    store: Path

    @property
    def annotations(self) -> Path:
        return self.root / "annotations"

    @property
    def hidden(self) -> Path:
        return self.root / "annotations_hidden"


@pytest.fixture(scope="session")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Three domains of three classes (pedestrians: two) that differ in colour, 27 training images of 72 pixels each."""
    folder = tmp_path_factory.mktemp("tiny")
    root = folder / "root"
    for domain, number in DOMAINS.items():
        write_domain(root, domain, number)
    assert not prepare(root, folder / "store").problems
    return Tiny(root, folder / "store")


def write_domain(root: Path, domain: str, number: int, sizes: dict[str, int] = SIZES) -> None:
    """One domain in the official layout, with hidden test labels."""
    classes = 2 if domain == "daimlerpedcls" else 3
    base, place = number * 10**7, 0
    categories = [{"id": base + c + 1, "name": f"kind{c}", "supercategory": domain} for c in range(classes)]
    for split, size in sizes.items():
        images, labels = [], []
        for i in range(size):
            place, label = place + 1, i % classes
            inner = "" if split == "test" else f"/{label + 1:04d}"
            name = f"data/{domain}/{split}{inner}/{i + 1:06d}.jpg"
            height, width = (144, 72) if domain == "daimlerpedcls" else (72, 72 + 9 * (i % 3))
            write_picture(root / name, height, width, COLOURS[label], seed=base + place)
            image_id = base + 200_000 + place
            images.append({"id": image_id, "width": width, "height": height, "file_name": name})
            labels.append({"id": image_id, "image_id": image_id, "category_id": base + label + 1})
        document = {"info": {"description": "Tiny"}, "images": images, "categories": categories}
        labelled = {**document, "annotations": labels}
        if split == "test":
            write_document(root / "annotations" / f"{domain}_test_stripped.json", document)
            write_document(root / "annotations_hidden" / f"{domain}_test.json", labelled)
        else:
            write_document(root / "annotations" / f"{domain}_{split}.json", labelled)


def write_picture(path: Path, height: int, width: int, colour: Sequence[int], seed: int) -> None:
    """Smooth noise tinted by a colour."""
    coarse = np.random.default_rng(seed).integers(0, 160, (6, 5, 3)) + np.array(colour) * 0.37
    buffer = io.BytesIO()
    Image.fromarray(coarse.astype(np.uint8)).resize((width, height)).save(buffer, "JPEG", quality=92)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def write_document(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def train_tiny(
    store: Path, run: Path, *changes: str, resume: bool = False, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Train the tiny network in this process; returns the summary."""
    return train(load_config("quickstart", None, [*TINY, *changes]), str(store), run, resume, stop)


@pytest.fixture(scope="session")
def trained(challenge: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the tiny challenge, to be read only."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train_tiny(challenge.store, run, *TRAINED)
    return run


@pytest.fixture(scope="session")
def shared_norm(challenge: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with one set of batch-norm statistics, re-estimated at its end."""
    run = tmp_path_factory.mktemp("shared") / "run"
    train_tiny(challenge.store, run, *SHARED_NORM)
    return run
