"""Figures: whole PNG files of a sensible size, which show what the data say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from decathlon.figures import MaskRow, accuracy_bars, mask_grid
from decathlon.specs import official_domains
from mtan_core.curves import training_curves

DOMAINS = list(official_domains())


def pixels(path: Path) -> NDArray[np.uint8]:
    """The picture, checked to be a PNG that a reader can see."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 300 <= picture.width <= 2500
        assert 150 <= picture.height <= 2500
        shown = np.asarray(picture.convert("RGB"))
    assert shown.std() > 5
    return shown


def accuracies(val: float) -> dict[str, dict[str, float]]:
    return {
        "val": dict.fromkeys(DOMAINS, val),
        "test": {name: 0.5 + place / 20 for place, name in enumerate(DOMAINS)},
        "chance": dict.fromkeys(DOMAINS, 0.1),
    }


def metrics(decay: float, domains: list[str] = DOMAINS, val: bool = True) -> pd.DataFrame:
    epochs = range(1, 13)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "domain": name,
            "loss": 3 * decay**epoch + place / 10,
            "weight": 1 + 0.2 * np.sin(epoch + place),
            "accuracy": 1 - 0.9 * decay**epoch,
            "val_accuracy": (1 - decay**epoch) * (0.95 - place / 30) if val and epoch % 3 == 0 else None,
        }
        for epoch in epochs
        for place, name in enumerate(domains)
    )


def mask_rows(seed: int, rows: int = 3) -> list[MaskRow]:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (72, 144, 3), dtype=np.uint8)
    return [
        (
            f"image {row}",
            image[:, : 72 * (1 + row % 2)],
            [(name, random.random((18, 18))) for name in DOMAINS[: 10 - row]],
        )
        for row in range(rows)
    ]


def test_bars_show_the_accuracies(tmp_path: Path) -> None:
    accuracy_bars(tmp_path / "a.png", DOMAINS, accuracies(0.9), "Accuracy")
    accuracy_bars(tmp_path / "b.png", DOMAINS, accuracies(0.4), "Accuracy")
    assert (pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any()


def test_bars_may_lack_a_domain(tmp_path: Path) -> None:
    accuracy_bars(tmp_path / "figures" / "a.png", ["svhn", "dtd"], {"val": {"svhn": 0.5}}, "One")
    pixels(tmp_path / "figures" / "a.png")


def test_curves_show_the_metrics(tmp_path: Path) -> None:
    training_curves(tmp_path / "a.png", metrics(0.7))
    training_curves(tmp_path / "b.png", metrics(0.9))
    assert (pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any()


def test_curves_leave_out_what_was_not_measured_and_show_a_single_epoch(tmp_path: Path) -> None:
    training_curves(tmp_path / "whole.png", metrics(0.7, ["svhn"]))
    unmeasured = metrics(0.7, ["svhn"], val=False)
    training_curves(tmp_path / "part.png", unmeasured)
    training_curves(tmp_path / "one.png", unmeasured[unmeasured["epoch"] == 1])
    assert (pixels(tmp_path / "whole.png") != pixels(tmp_path / "part.png")).any()
    assert (pixels(tmp_path / "part.png") != pixels(tmp_path / "one.png")).any()


def test_the_grid_shows_images_and_masks(tmp_path: Path) -> None:
    mask_grid(tmp_path / "a.png", mask_rows(0), "Masks")
    mask_grid(tmp_path / "b.png", mask_rows(1), "Masks")
    assert (pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any()


def test_a_constant_mask_is_drawn(tmp_path: Path) -> None:
    image = np.arange(72 * 72 * 3, dtype=np.uint8).reshape(72, 72, 3)
    mask_grid(tmp_path / "a.png", [("one", image, [("svhn", np.full((9, 9), 0.5)), ("dtd", np.full((9, 9), 0.5))])])
    pixels(tmp_path / "a.png")


def test_the_same_data_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        accuracy_bars(tmp_path / name, ["svhn"], {"val": {"svhn": 0.5}}, "Same")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one domain"):
        accuracy_bars(tmp_path / "a.png", [], {}, "None")
    with pytest.raises(ValueError, match="expected a column 'loss'"):
        training_curves(tmp_path / "a.png", metrics(0.5).drop(columns="loss"))
    with pytest.raises(ValueError, match="at least one measured value"):
        training_curves(tmp_path / "a.png", metrics(0.5)[:0])
    with pytest.raises(ValueError, match="at least one row"):
        mask_grid(tmp_path / "a.png", [])
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    accuracy_bars(tmp_path / "a.png", ["svhn"], {"val": {"svhn": 0.5}}, "Old")
    old = (tmp_path / "a.png").read_bytes()
    with pytest.raises(ValueError, match="frac"):  # formulas are set when the figure is drawn
        accuracy_bars(tmp_path / "a.png", ["svhn"], {"val": {"svhn": 0.9}}, r"$\frac{$")
    assert (tmp_path / "a.png").read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
