"""A user's own images as a domain of a store: from folders, CSVs and official roots, of any size; and what is refused."""

import io
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decathlon.data.custom import Choices, Made, write_store
from decathlon.data.store import Store, open_store
from decathlon.prediction import read_image
from mtan_core.errors import UserError
from tests.decathlon.conftest import COLOURS, write_picture
from tests.decathlon.official_root import annotation_file, edit, make_root

TAKEN = {3, 4, 8}


def make_folder(folder: Path, images: int = 10, classes: tuple[str, ...] = ("10", "9", "ash")) -> Path:
    """An image folder; the names of classes are sorted as text, not as numbers."""
    for place, name in enumerate(classes):
        for i in range(images):
            write_picture(folder / name / f"{i}.jpg", 90 + i, 120, COLOURS[place], seed=100 * place + i)
    return folder


def made(source: Path, store: Path, name: str = "leaves", **choices: object) -> tuple[Made, Store]:
    result = write_store(source, name, store, TAKEN, Choices(**choices))  # type: ignore[arg-type]
    return result, open_store(store)


def refusal(source: Path, tmp_path: Path, name: str = "leaves", **choices: object) -> str:
    """The one sentence; nothing is left in the store's folder."""
    with pytest.raises(UserError) as refused:
        made(source, tmp_path / "refused", name, **choices)
    assert not [path for path in (tmp_path / "refused").rglob("*") if path.is_file()]
    told = str(refused.value)
    assert told.endswith(".") and "\n" not in told
    return told


def huge_png(side: int) -> bytes:
    """A PNG whose header says `side` x `side`; its data would be unpacked to that much memory."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def huge_jpeg(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def small_png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_folder_becomes_a_domain_with_a_stratified_val(tmp_path: Path) -> None:
    result, store = made(make_folder(tmp_path / "images"), tmp_path / "store")
    spec = store.specs["leaves"]
    assert (result.number, spec.number, spec.source, spec.baseline_error) == (11, 11, "custom", None)
    assert spec.class_names == ("10", "9", "ash") and (spec.fit, spec.mirror) == ("squash", False)
    assert store.splits("leaves") == ["train", "val"] and result.images == {"train": 24, "val": 6}
    train, val = store.split("leaves", "train"), store.split("leaves", "val")
    assert train.labels is not None and val.labels is not None
    assert np.bincount(train.labels).tolist() == [8, 8, 8] and np.bincount(val.labels).tolist() == [2, 2, 2]
    assert [*train.image_ids, *val.image_ids] == list(range(110_200_001, 110_200_031))
    pixels = np.concatenate([train.image(i).reshape(-1, 3) for i in range(len(train))]) / 255
    assert np.allclose(spec.mean, pixels.mean(0), atol=1e-5) and np.allclose(spec.std, pixels.std(0), atol=1e-5)
    assert any("6 of 30 images" in note for note in result.notes)


def test_images_are_stored_as_prediction_sees_them(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", images=2)
    for i, size in enumerate([(28, 28), (500, 300), (72, 72), (9, 300)]):
        write_picture(folder / "ash" / f"other{i}.png", *size, COLOURS[0], seed=i)
    _, store = made(folder, tmp_path / "store", val_share=0)
    split = store.split("leaves", "train")
    assert store.splits("leaves") == ["train"] and set(np.minimum(split.heights, split.widths)) == {72}
    expected = [read_image(path) for path in sorted((folder / "ash").iterdir())]
    found = [split.image(i) for i in range(len(split)) if split.labels is not None and split.labels[i] == 2]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_division_depends_on_the_seed_alone(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images")
    images = []
    for place, seed in enumerate((0, 0, 1)):
        _, store = made(folder, tmp_path / f"store{place}", seed=seed)
        split = store.split("leaves", "val")
        images.append([split.image(i).tobytes() for i in range(len(split))])
    assert images[0] == images[1] != images[2]


def test_a_folder_with_splits(tmp_path: Path) -> None:
    """Test images lie loose or in folders, whose names are not looked at."""
    folder = tmp_path / "images"
    make_folder(folder / "train", 4)
    make_folder(folder / "val", 2, ("9", "ash"))
    make_folder(folder / "test", 3, ("any",))
    result, store = made(folder, tmp_path / "store", fit="crop", mirror=True, baseline_error=0.25)
    assert result.images == {"train": 12, "val": 4, "test": 3} and store.splits("leaves") == ["train", "val", "test"]
    assert store.split("leaves", "test").labels is None
    spec = store.specs["leaves"]
    assert (spec.fit, spec.mirror, spec.baseline_error) == ("crop", True, 0.25)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    _, store = made(make_folder(tmp_path / "vehicles", 3, ("bus", "car", "train")), tmp_path / "store")
    assert store.specs["leaves"].class_names == ("bus", "car", "train")


def test_a_csv(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 3)
    rows = [f"images/{path.parent.name}/{path.name},is {path.parent.name},train" for path in folder.rglob("*.jpg")]
    table = tmp_path / "table.csv"
    write_picture(tmp_path / "one, two.png", 40, 50, COLOURS[0], 5)
    lines = ["path,label,split", *rows, '"one, two.png",,test']
    table.write_text("\ufeff" + "\r\n".join(lines) + "\n\n", encoding="utf-8")
    result, store = made(table, tmp_path / "store")
    assert result.images == {"train": 7, "val": 2, "test": 1}
    assert store.specs["leaves"].class_names == ("is 10", "is 9", "is ash")


def test_an_official_root_keeps_its_ids_labels_and_test(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("dtd", "leaves"))
    result, store = made(root, tmp_path / "store")
    assert result.images == {"train": 6, "val": 4, "test": 3} and result.number == 11
    assert store.split("leaves", "train").image_ids[0] == 110_200_001
    assert store.split("leaves", "train").heights[0] == 24  # as it is in its file, as `prepare` does it
    assert store.domains == ["leaves"]


def test_an_official_domain_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    result = write_store(make_root(tmp_path / "root", ("svhn",)), "svhn", tmp_path / "store", {4, 11}, Choices())
    assert result.number == 8 and open_store(tmp_path / "store").specs["svhn"].baseline_error == 0.0345


def test_an_official_root_without_val_and_test(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("leaves",))
    for split in ("val", "test"):
        annotation_file(root, "leaves", split).unlink()
        shutil.rmtree(root / "data" / "leaves" / split)
    result, _ = made(root, tmp_path / "store")
    assert result.images == {"train": 5, "val": 1}


def test_a_number_that_is_taken_becomes_the_next_free_one(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("leaves",))
    result = write_store(root, "leaves", tmp_path / "store", {11, 12, 14}, Choices())
    split = open_store(tmp_path / "store").split("leaves", "train")
    assert result.number == split.spec.number == 13 and split.image_ids[0] == 130_200_001
    assert any("its own, 11, is taken" in note for note in result.notes)


def test_images_that_cannot_be_used_can_be_left_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images")
    (folder / "9" / "3.jpg").write_bytes(b"no image")
    assert "3.jpg" in refusal(folder, tmp_path)
    result, store = made(folder, tmp_path / "store", skip=True)
    assert sum(result.images.values()) == 29 and len(result.problems) == 1
    assert store.metadata("leaves", "train")["skipped"] == 1


def test_a_split_of_which_nothing_can_be_read_is_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 2)
    for file in folder.rglob("1.jpg"):
        file.write_bytes(b"no image")
    for file in folder.rglob("0.jpg"):
        file.write_bytes(b"no image")
    told = refusal(folder, tmp_path, skip=True)
    assert "found none that can be read" in told and "--on-error" not in told


def test_folders_that_archives_of_macos_bring_are_no_classes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images")
    (folder / "__MACOSX").mkdir()
    assert made(folder, tmp_path / "store")[1].specs["leaves"].class_names == ("10", "9", "ash")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "odd.jpg"), (b"no image", "odd.jpg"), (small_png(1, 1), "1x1"), (huge_png(20_000), "larger"),
        (huge_jpeg(20_000), "larger"),
    ],
    ids=["empty", "text", "1x1", "huge png", "huge jpeg"],
)  # fmt: skip
def test_files_that_are_no_images_to_work_with_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    folder = make_folder(tmp_path / "images", 2)
    (folder / "9" / "odd.jpg").write_bytes(data)
    told = refusal(folder, tmp_path)
    assert words in told and "odd.jpg" in told and "--on-error skip" in told


def no_classes(folder: Path) -> Path:
    make_folder(folder, 2)
    for path in list(folder.rglob("*.jpg")):
        path.rename(folder / f"{path.parent.name}-{path.name}")
    for path in [path for path in folder.iterdir() if path.is_dir()]:
        path.rmdir()
    return folder


def empty_class(folder: Path) -> Path:
    make_folder(folder, 2)
    (folder / "elm").mkdir()
    (folder / "elm" / "notes.txt").write_text("later")
    return folder


def strange_in_val(folder: Path) -> Path:
    make_folder(folder / "train", 2)
    make_folder(folder / "val", 2, ("9", "fir"))
    return folder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_classes, "a folder for each class, found none, and 6 images"),
        (empty_class, "none in elm"),
        (lambda folder: make_folder(folder, 2, ("ash",)), r"two classes, found one ('ash')"),
        (strange_in_val, "'fir' in val"),
        (lambda folder: folder / "absent", "found nothing"),
        (lambda folder: make_folder(folder, 1) / "ash" / "0.jpg", "found a file"),
        (lambda folder: folder / "absent.csv", "no such file"),
    ],
)
def test_bad_folders_are_refused(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    (tmp_path / "images").mkdir()
    assert words in refusal(make(tmp_path / "images"), tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.jpg,x\nb.jpg,y\ngone.jpg,x\nlost.jpg,x\n", "expected 4 image files, found 2 missing, first"),
        ("file,label\na.jpg,x\n", "no 'path'"), ("path,class\na.jpg,x\n", "no 'label'"), ("", "no 'path'"),
        ("path,label\na.jpg,x\nb.jpg,x\n", "found one ('x')"), ("path,label\n", "found none in train"),
        ("path,label\na.jpg,x\nb.jpg,\n", "line 3"), ("path,label\na.jpg,x,z,w\n", "line 2"),
        ("path,label\na.jpg,x\na.jpg,y\n", "twice"), ("path,label,split\na.jpg,x,trian\n", "'trian'"),
        ("path,label\n\xff\xfe,x\n", "UTF-8"), ('path,label\n"a.jpg,x\n', "CSV"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused(tmp_path: Path, text: str, words: str) -> None:
    for name in ("a.jpg", "b.jpg"):
        write_picture(tmp_path / name, 20, 20, COLOURS[0], 1)
    table = tmp_path / "table.csv"
    table.write_bytes(text.encode("latin-1"))
    assert words in refusal(table, tmp_path)


def test_bad_official_roots_are_refused(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", ("leaves",))
    assert "annotations/fungi_train.json" in refusal(root, tmp_path, "fungi")
    edit(annotation_file(root, "leaves", "train"), lambda document: document["annotations"].pop())
    assert "without annotation" in refusal(root, tmp_path)
    annotation_file(root, "leaves", "train").write_text("{")
    assert "not JSON" in refusal(root, tmp_path)
    one = make_root(tmp_path / "one", ("leaves",), classes=1)
    assert "found one ('kind0')" in refusal(one, tmp_path)


def test_an_official_name_needs_official_images(tmp_path: Path) -> None:
    assert "official" in refusal(make_folder(tmp_path / "images", 2), tmp_path, "aircraft")


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_is_a_share(tmp_path: Path, share: float) -> None:
    assert "--val-share" in refusal(make_folder(tmp_path / "images", 2), tmp_path, val_share=share)


def test_one_image_of_each_class_leaves_nothing_for_val(tmp_path: Path) -> None:
    result, store = made(make_folder(tmp_path / "images", 1), tmp_path / "store")
    assert store.splits("leaves") == ["train"]
    assert any("no val" in note for note in result.notes)
