import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from decathlon.cli import app
from decathlon.data.prepare import prepare
from decathlon.data.store import open_store

from .official_root import make_root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    root = make_root(folder / "root", ("dtd", "svhn"), {"train": 9, "val": 4, "test": 3})
    (root / "data/svhn/train/0001/000001.jpg").unlink()
    prepare(root, folder / "store", on_error="skip", resplit=3)
    return folder / "store"


def test_json_has_what_the_images_have(store: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(store), "--json"])
    assert result.exit_code == 0
    domains = json.loads(result.stdout)["domains"]
    assert list(domains) == ["dtd", "svhn"]
    assert [domains["svhn"]["splits"][split]["images"] for split in ("train", "val", "test")] in ([8, 4, 3], [9, 3, 3])
    assert (domains["svhn"]["skipped"], domains["dtd"]["skipped"], domains["dtd"]["resplit"]) == (1, 0, 3)
    train = domains["dtd"]["splits"]["train"]
    assert (train["widths"], train["heights"], train["classes"]) == ([24, 32], [24, 24], 2)
    images = open_store(store).split("dtd", "train")
    pixels = np.concatenate([images.image(i).reshape(-1, 3) for i in range(len(images))]) / 255
    np.testing.assert_allclose(train["measured_mean"], pixels.mean(axis=0), atol=1e-6)
    assert domains["dtd"]["published_mean"] == [0.526965, 0.470252, 0.423967]
    assert domains["dtd"]["splits"]["test"]["biggest_class"] is None


def test_the_table_shows_what_was_left_out_and_done(store: Path) -> None:
    lines = CliRunner().invoke(app, ["inspect", str(store)]).stdout.splitlines()
    assert any("24-32 x 24-24" in line for line in lines)
    assert any("0.527 0.470 0.424" in line for line in lines)
    assert "svhn: source custom; 1 left out; train and val divided anew by seed 3" in lines


def test_the_figure_shows_the_images(store: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["inspect", str(store), "--domains", "dtd", "--figure", str(tmp_path / "sheet.png")]
    )
    assert result.exit_code == 0, result.output
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    coloured = (sheet.max(axis=2).astype(int) - sheet.min(axis=2) > 30).mean()  # titles are grey, the background white
    assert coloured > 0.2
    assert "svhn" not in result.stdout
