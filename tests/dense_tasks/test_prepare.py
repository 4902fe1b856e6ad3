"""From official files to roots: what is in them, what a mistake says, and what a killed pass leaves."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dense_tasks.data.cityscapes import cityscapes_source, label_map
from dense_tasks.data.nyuv2 import FORTY_TO_THIRTEEN, nyuv2_source
from dense_tasks.data.prepare import Source, SourceFrame, write_root
from dense_tasks.data.root import open_root
from dense_tasks.datasets import DATASETS
from mtan_core.errors import UserError
from tests.conftest import Mtan, document
from tests.dense_tasks import official
from tests.dense_tasks.scenes import angles

SIZE = "96x128"


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official.write_nyuv2(tmp_path_factory.mktemp("nyu"))


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official.write_cityscapes(tmp_path_factory.mktemp("city"))


def test_nyuv2_from_the_official_files(nyu: Path, tmp_path: Path, mtan: Mtan) -> None:
    root = tmp_path / "root"
    made = document(mtan("dense", "prepare", "nyuv2", nyu, root, "--size", SIZE, "--json"))
    assert made == {"root": str(root), "dataset": "nyuv2", "frames": {"train": 3, "val": 2}, "written": 5}
    opened = open_root(root)
    assert opened.size == (96, 128)
    for split, numbers in (("train", official.TRAIN), ("val", official.TEST)):
        for place, number in enumerate(numbers):
            image, label, depth, normal = (
                np.load(root / split / kind / f"{place}.npy") for kind in ("image", "label", "depth", "normal")
            )
            scene, official_labels = official.nyu_scene(number), official.nyu_labels(number)
            np.testing.assert_allclose(image, official.nyu_image(number) / 255, atol=5e-4)
            expected = [
                [-1 if n == 0 else FORTY_TO_THIRTEEN[official.class_of_40(int(n)) - 1] - 1 for n in row]
                for row in official_labels
            ]
            np.testing.assert_array_equal(label, expected)
            np.testing.assert_allclose(depth[..., 0], scene.depth, rtol=1e-6)
            there = (normal != 0).any(-1)
            assert there.mean() > 0.99
            assert np.median(angles(normal[there].astype(float), scene.normal[there])) < 0.1
    names = json.loads((root / "names.json").read_text(encoding="utf-8"))
    assert names["train"]["0"] == {"frame": 5, "scene": "kitchen_0005"}
    assert [entry["frame"] for entry in names["val"].values()] == list(official.TEST)
    assert not (tmp_path / "root.partial").exists()


def test_raw_depth_has_holes(nyu: Path, tmp_path: Path, mtan: Mtan) -> None:
    assert mtan("dense", "prepare", "nyuv2", nyu, tmp_path / "root", "--size", SIZE, "--raw-depth").code == 0
    depth = np.load(tmp_path / "root/train/depth/0.npy")
    assert (depth[:, :10] == 0).all() and (depth[:, 10:] > 0).all()
    assert (np.load(tmp_path / "root/train/normal/0.npy")[:, :10] == 0).all()


def test_without_a_map_to_13_the_built_in_one_holds(nyu: Path, tmp_path: Path) -> None:
    folder = official.write_nyuv2(tmp_path / "source", map_13=False)
    frame = nyuv2_source(nyu, (96, 128)).frames[0]
    first, second = (nyuv2_source(path, (96, 128)).arrays(frame)["label"] for path in (nyu, folder))
    np.testing.assert_array_equal(first, second)
    assert sorted(set(FORTY_TO_THIRTEEN)) == list(range(1, 14))


def test_normals_that_are_given_are_taken(tmp_path: Path) -> None:
    folder = official.write_nyuv2(tmp_path / "source")
    given = np.zeros((5, 3, official.NYU_WIDTH, official.NYU_HEIGHT), dtype=np.float32)
    given[:, 1, : official.NYU_WIDTH // 2] = 1
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as file:
        file["normals"] = given
    source = nyuv2_source(folder, (96, 128))
    normal = source.arrays(source.frames[0])["normal"]
    assert (normal[:, :64] == [0, 1, 0]).all() and (normal[:, 64:] == 0).all()


@pytest.mark.parametrize("classes", [2, 7, 19])
def test_cityscapes_from_the_official_folders(city: Path, tmp_path: Path, mtan: Mtan, classes: int) -> None:
    root = tmp_path / "root"
    words = ("dense", "prepare", "cityscapes", city, root, "--classes", classes, "--size", "64x128", "--json")
    assert document(mtan(*words))["frames"] == {"train": 3, "val": 1}
    opened = open_root(root)
    assert (opened.dataset.name, list(opened.tasks)) == (f"cityscapes{classes}", ["semantic", "depth"])
    names = json.loads((root / "names.json").read_text(encoding="utf-8"))
    assert [entry["frame"] for entry in names["train"].values()] == sorted(official.CITY_FRAMES["train"])
    for place, entry in names["train"].items():
        _, ids, disparity = official.city_arrays(entry["frame"])
        np.testing.assert_array_equal(np.load(root / f"train/label/{place}.npy"), label_map(classes)[ids[::2, ::2]])
        p = disparity[::2, ::2].astype(np.float64)
        expected = np.where(p > 0, (p - 1) / 256 / 256, 0)
        np.testing.assert_allclose(np.load(root / f"train/depth/{place}.npy")[..., 0], expected, rtol=1e-6)


def test_cityscapes_classes_are_those_of_its_own_scripts() -> None:
    nineteen, seven, two = label_map(19), label_map(7), label_map(2)
    names = {7: "road", 11: "building", 23: "sky", 24: "person", 26: "car", 33: "bicycle"}
    for number, name in names.items():
        assert DATASETS["cityscapes19"].classes[nineteen[number]] == name
    groups = {
        7: "flat",
        9: "flat",
        16: "construction",
        18: "object",
        22: "nature",
        23: "sky",
        25: "human",
        30: "vehicle",
    }
    for number, group in groups.items():
        assert DATASETS["cityscapes7"].classes[seven[number]] == group
    assert (nineteen >= 0).sum() == 19
    assert (seven >= 0).sum() == 27 == (two >= 0).sum()
    assert set(np.flatnonzero(two == 1)) == set(range(24, 34))
    for void in (0, 1, 2, 3, 4, 5, 6, 255):
        assert nineteen[void] == seven[void] == two[void] == -1


def test_the_greatest_disparity_is_that_of_the_authors_files() -> None:
    from dense_tasks.data.cityscapes import inverse_depth

    assert inverse_depth(np.array([0, 1, 257, 32257], dtype=np.uint16)).tolist() == pytest.approx(
        [0, 0, 1 / 256, 0.4921875]
    )


def replace(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Put a changed data set into the labelled file, or a group where there is none."""
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as file:
        values, kind = change(file[name][()]), file[name].dtype
        del file[name]
        if values is None:
            file.create_group(name)
        else:
            file.create_dataset(name, data=values, dtype=kind if kind == h5py.ref_dtype else values.dtype)


NYU_MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not HDF5": (
        lambda f: savemat(f / "nyu_depth_v2_labeled.mat", {"images": np.zeros(3)}),
        r"expected a MATLAB 7.3 file \(HDF5\), found another format",
    ),
    "half a file": (
        lambda f: (f / "nyu_depth_v2_labeled.mat").write_bytes((f / "nyu_depth_v2_labeled.mat").read_bytes()[:9000]),
        "found a damaged or incomplete one",
    ),
    "no labelled file": (lambda f: (f / "nyu_depth_v2_labeled.mat").unlink(), "Expected nyu_depth_v2_labeled.mat in"),
    "no splits": (lambda f: (f / "splits.mat").unlink(), "Expected splits.mat in"),
    "no class map": (lambda f: (f / "classMapping40.mat").unlink(), "Expected classMapping40.mat in"),
    "splits of nothing known": (lambda f: savemat(f / "splits.mat", {"a": 1}), "expected the variable 'trainNdxs', found a"),
    "splits that are no MATLAB file": (lambda f: (f / "splits.mat").write_text("x" * 500), "expected a MATLAB file"),
    "splits of a few bytes": (lambda f: (f / "splits.mat").write_text("x"), "expected a MATLAB file"),
    "half of the splits": (
        lambda f: (f / "splits.mat").write_bytes((f / "splits.mat").read_bytes()[:250]), "expected a MATLAB file"
    ),
    "splits that are text": (
        lambda f: savemat(f / "splits.mat", {"trainNdxs": "one", "testNdxs": [[2]]}), "whole numbers in trainNdxs"
    ),
    "splits that are undefined": (
        lambda f: savemat(f / "splits.mat", {"trainNdxs": [[1]], "testNdxs": [[np.nan]]}), "whole numbers in testNdxs"
    ),
    "a frame beyond the file": (
        lambda f: savemat(f / "splits.mat", {"trainNdxs": [[1], [9]], "testNdxs": [[2]]}),
        "expected frames from 1 to 5, found 9",
    ),
    "a frame in both splits": (
        lambda f: savemat(f / "splits.mat", {"trainNdxs": [[1], [2]], "testNdxs": [[2]]}),
        "every frame in one split",
    ),
    "a short class map": (
        lambda f: savemat(f / "classMapping40.mat", {"mapClass": np.ones((1, 40))}),
        "expected 894 numbers from 1 to 40",
    ),
    "a class map of text": (
        lambda f: savemat(f / "classMapping40.mat", {"mapClass": "none"}), "expected whole numbers in mapClass"
    ),
    "an empty map to 13": (
        lambda f: savemat(f / "class13Mapping.mat", {"classMapping13": np.empty((0, 0), dtype=object)}),
        "expected whole numbers in classMapping13",
    ),
    "images of 16 bits": (
        lambda f: replace(f, "images", lambda images: images.astype(np.uint16)), "expected images of uint8, found uint16"
    ),
    "a group in place of images": (
        lambda f: replace(f, "images", lambda images: None), "expected the data set 'images'"
    ),
    "fewer scenes than frames": (lambda f: replace(f, "scenes", lambda scenes: scenes[:, :2]), "found 2"),
    "another map to 13": (
        lambda f: savemat(f / "class13Mapping.mat", {"classMapping13": {"labels": np.ones((1, 9))}}),
        "expected 40 numbers from 1 to 13",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", NYU_MISTAKES)
def test_mistakes_in_nyuv2_s_files(mistake: str, tmp_path: Path, mtan: Mtan) -> None:
    folder = official.write_nyuv2(tmp_path / "source")
    make, told = NYU_MISTAKES[mistake]
    make(folder)
    with pytest.raises(UserError, match=told):
        nyuv2_source(folder)
    outcome = mtan("dense", "prepare", "nyuv2", folder, tmp_path / "root")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"found nothing at {tmp_path / 'nowhere'}"):
        nyuv2_source(tmp_path / "nowhere")


def test_a_data_set_that_is_missing_or_of_another_shape(tmp_path: Path) -> None:
    folder = official.write_nyuv2(tmp_path / "source")
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as file:
        del file["depths"]
        file["depths"] = np.zeros((5, 3, 3), dtype=np.float32)
    with pytest.raises(UserError, match="expected 'depths' of shape"):
        nyuv2_source(folder)
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as file:
        del file["labels"]
    with pytest.raises(UserError, match="expected the data set 'labels'"):
        nyuv2_source(folder)


def test_a_file_that_is_damaged_inside(tmp_path: Path) -> None:
    path = official.write_nyuv2(tmp_path / "source") / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "a") as file:
        images = file["images"][()]
        del file["images"]
        packed = file.create_dataset("images", data=images, chunks=(1, *images.shape[1:]), compression="gzip")
        chunk = packed.id.get_chunk_info(4)
    with path.open("r+b") as raw:
        raw.seek(512 + chunk.byte_offset)  # behind MATLAB's own header
        raw.write(bytes(chunk.size))
    with pytest.raises(UserError, match="damaged at frame 5"):
        write_root(nyuv2_source(path), tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        (
            "labels",
            np.full((5, 128, 96), 895, dtype=np.uint16),
            "a label of 895 where the official numbers are 0 to 894",
        ),
        ("labels", np.full((5, 128, 96), -1, dtype=np.int16), "a label of -1 where"),
        ("normals", np.full((5, 3, 128, 96), 2, dtype=np.float32), "12288 normals not of unit length"),
        ("normals", np.full((5, 3, 128, 96), np.nan, dtype=np.float32), "a normal that is NaN"),
    ],
)
def test_numbers_that_the_official_files_do_not_hold(name: str, values: np.ndarray, told: str, tmp_path: Path) -> None:
    path = official.write_nyuv2(tmp_path / "source") / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file[name] = values
    with pytest.raises(UserError, match=f"found frame 5 with {told}"):
        write_root(nyuv2_source(path, (96, 128)), tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(("kind", "values"), [("gtFine", np.uint16(300)), ("disparity", np.uint8(9))])
def test_cityscapes_numbers_of_another_width(kind: str, values: np.generic, tmp_path: Path) -> None:
    folder = official.write_cityscapes(tmp_path / "source")
    file = next((folder / kind / "val/lindau").iterdir())
    Image.fromarray(np.full((official.CITY_HEIGHT, official.CITY_WIDTH), values)).save(file)
    with pytest.raises(UserError, match="colour and labels of 8 bits and disparity of 16 for lindau_000000_000019"):
        write_root(cityscapes_source(folder), tmp_path / "root")


def test_mistakes_in_cityscapes_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Expected the official folder leftImg8bit/train"):
        cityscapes_source(tmp_path)
    folder = official.write_cityscapes(tmp_path / "source")
    with pytest.raises(UserError, match="expected 2, 7 or 19, found 8"):
        cityscapes_source(folder, classes=8)
    disparity = folder / "disparity/val/lindau/lindau_000000_000019_disparity.png"
    disparity.write_bytes(b"rubbish")
    with pytest.raises(UserError, match="expected a PNG image, found a damaged file"):
        write_root(cityscapes_source(folder), tmp_path / "root")
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(disparity)
    with pytest.raises(UserError, match="of one size"):
        write_root(cityscapes_source(folder), tmp_path / "root")
    disparity.unlink()
    with pytest.raises(UserError, match=r"found 1 missing, the first .*lindau_000000_000019_disparity\.png"):
        cityscapes_source(folder)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("size", ["300x400", "288", "0x32", "288x384x3", "a x b"])
def test_sizes_that_no_segnet_takes(size: str, nyu: Path, tmp_path: Path, mtan: Mtan) -> None:
    outcome = mtan("dense", "prepare", "nyuv2", nyu, tmp_path / "root", "--size", size)
    assert (outcome.code, "--size" in outcome.err) == (2, True)


def test_a_finished_root_is_kept_and_another_not_touched(city: Path, tmp_path: Path, mtan: Mtan) -> None:
    words = ("dense", "prepare", "cityscapes", city, tmp_path / "root", "--size", "64x128")
    assert mtan(*words).code == 0
    before = (tmp_path / "root/val/image/0.npy").stat().st_mtime_ns
    assert document(mtan(*words, "--json"))["written"] == 0
    other = mtan(*words, "--classes", 19)
    assert (other.code, "with other options" in other.err) == (2, True)
    assert (tmp_path / "root/val/image/0.npy").stat().st_mtime_ns == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    assert mtan("dense", "prepare", "cityscapes", city, tmp_path / "full").code == 2
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


class StoppedError(Exception):
    pass


def stopping(source: Source, after: int) -> Source:
    """The same source, which fails at the frame after `after` others."""
    done: list[SourceFrame] = []

    def arrays(frame: SourceFrame) -> Any:
        if len(done) == after:
            raise StoppedError
        done.append(frame)
        return source.arrays(frame)

    return Source(source.dataset, source.options, source.folders, source.frames, arrays)


def test_an_interrupted_pass_goes_on_where_it_stopped(city: Path, tmp_path: Path) -> None:
    source, root, partial = cityscapes_source(city, size=(64, 128)), tmp_path / "root", tmp_path / "root.partial"
    with pytest.raises(StoppedError):
        write_root(stopping(source, 2), root)
    assert not root.exists()
    with pytest.raises(UserError, match="begun with dataset cityscapes7, found dataset cityscapes19"):
        write_root(cityscapes_source(city, 19, size=(64, 128)), root)
    with pytest.raises(UserError, match="begun with size"):
        write_root(cityscapes_source(city, size=(32, 64)), root)
    (partial / "train/depth/1.npy").write_bytes(b"")  # as a power cut may leave it
    assert write_root(source, root).written == 3
    whole = tmp_path / "whole"
    write_root(source, whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert all((whole / file).read_bytes() == (root / file).read_bytes() for file in files)


def test_a_killed_pass_leaves_nothing_that_looks_complete(nyu: Path, tmp_path: Path) -> None:
    root, partial = tmp_path / "root", tmp_path / "root.partial"
    program = "import sys; from experiments.cli import main; sys.argv[0] = 'mtan'; main()"
    words = [sys.executable, "-c", program, "dense", "prepare", "nyuv2", nyu / "nyu_depth_v2_labeled.mat", root]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 60
        while not list(partial.glob("train/normal/*.npy")) and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert not root.exists()
    assert not (partial / "dataset.json").exists()
    for file in partial.rglob("*.npy"):
        np.load(file)
    made = write_root(nyuv2_source(nyu), root)
    assert made.written < 5
    assert open_root(root).size == (288, 384)  # the paper's, by default
    assert open_root(root).frames == {"train": ("0", "1", "2"), "val": ("0", "1")}
