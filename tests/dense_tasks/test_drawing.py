"""Drawings: what a reader needs is on them, and undefined pixels are white."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dense_tasks.datasets import DATASETS
from dense_tasks.drawing import Drawn, draw_predictions
from dense_tasks.tasks import tasks
from tests.conftest import Mtan
from tests.dense_tasks.roots import write_root

TASKS = tasks()


def drawn() -> Drawn:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(3, 32, 64))
    predictions = {"semantic": rng.normal(size=(13, 32, 64)), "depth": rng.random((1, 32, 64)) + 1, "normal": normal}
    return Drawn("one", rng.random((32, 64, 3)), predictions, {"semantic": rng.integers(-1, 13, (32, 64))})


def test_a_figure_of_predictions_and_labels(tmp_path: Path) -> None:
    draw_predictions(tmp_path / "figure.png", [drawn(), drawn()], TASKS, "title")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG"
        assert image.width > 1200
        assert image.height > 900
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 1000


def test_the_legend_names_the_classes_that_occur() -> None:
    axes = Figure().add_subplot()
    label = np.full((4, 4), -1)
    label[0, 0], label[3, 3] = 11, 2
    TASKS["semantic"].draw(axes, label)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ceiling", "wall"]
    colours = np.asarray(axes.images[0].get_array())
    assert (colours[1, 1] == 1).all()
    assert (colours[0, 0] != colours[3, 3]).any()


def test_a_prediction_is_drawn_as_its_most_likely_classes() -> None:
    label = np.random.default_rng(0).integers(0, 13, (4, 6))
    pictures = []
    for values in (label, np.eye(13)[label].transpose(2, 0, 1)):
        axes = Figure().add_subplot()
        TASKS["semantic"].draw(axes, values)
        pictures.append(np.asarray(axes.images[0].get_array()))
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize(("name", "unit"), [("nyuv2", "depth (m)"), ("cityscapes7", "inverse depth")])
def test_depth_has_a_scale_bar_with_its_unit(name: str, unit: str) -> None:
    axes = Figure().add_subplot()
    tasks(DATASETS[name])["depth"].draw(axes, np.array([[[0.0, 2.0], [3.0, 4.0]]]))
    assert [bar.get_xlabel() for bar in axes.child_axes] == [unit]
    values = axes.images[0].get_array()
    assert values is not None
    assert np.ma.getmaskarray(values).tolist() == [[True, False], [False, False]]
    assert axes.images[0].get_clim() == (2.0, 4.0)


def test_normals_are_red_to_the_right_green_up_and_blue_to_the_camera() -> None:
    axes = Figure().add_subplot()
    TASKS["normal"].draw(axes, np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, -1.0, 0]]).reshape(3, 1, 4))
    colours = np.asarray(axes.images[0].get_array())
    assert colours[0].tolist() == [[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 0], [1, 1, 1]]


def test_inspect_draws_labels(tmp_path: Path, mtan: Mtan) -> None:
    root = write_root(tmp_path / "root")
    assert mtan("dense", "inspect", root, "--figure", tmp_path / "labels.png").code == 0
    assert (tmp_path / "labels.png").stat().st_size > 10_000
    assert mtan("dense", "inspect", root, "--figure", tmp_path / "labels.gif").code == 2


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        draw_predictions(tmp_path / "figure.png", [], TASKS)


def test_every_class_has_a_colour_of_its_own() -> None:
    for dataset in DATASETS.values():
        assert len(set(dataset.colours)) == len(dataset.classes) == len(dataset.colours) == len(set(dataset.classes))
