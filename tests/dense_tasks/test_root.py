"""Roots with mistakes are refused in one sentence before anything is learnt; good ones are looked at once."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dense_tasks.data import scan as scan_module
from dense_tasks.data.root import Root, open_root
from mtan_core.errors import UserError
from tests.conftest import Mtan, document
from tests.dense_tasks.roots import HEIGHT, WIDTH, arrays, write_frame, write_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path / "root")


def same(first: Root, second: Root) -> bool:
    """Equal but for the tasks' functions, which are made anew."""
    return replace(first, tasks={}) == replace(second, tasks={})


def test_a_good_root(root: Path) -> None:
    opened = open_root(root)
    assert opened.size == (HEIGHT, WIDTH)
    assert opened.frames == {"train": ("0", "1", "2"), "val": ("0", "1")}
    assert list(opened.tasks) == ["semantic", "depth", "normal"]
    assert opened.warnings == ()


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root", train=12)
    assert open_root(root).frames["train"] == tuple(str(number) for number in range(12))


def change(root: Path, name: str, edit: Callable[[np.ndarray], np.ndarray | None]) -> None:
    values = np.load(root / name)
    changed = edit(values)
    np.save(root / name, values if changed is None else changed)


def put(place: object, value: float) -> Callable[[np.ndarray], None]:
    def edit(values: np.ndarray) -> None:
        values[place] = value

    return edit


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


class Trap:
    """Unpickled, it would say so."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("unpickled",)


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder of images": (lambda r: shutil.rmtree(r / "train/image"), "no folder train/image"),
    "no folder of a split": (lambda r: shutil.rmtree(r / "val"), "no folder val/image; no folder val/label"),
    "empty folder": (lambda r: [f.unlink() for f in (r / "val/depth").iterdir()], "no file <n>.npy in val/depth"),
    "unequal counts": (
        lambda r: (r / "train/depth/1.npy").unlink(),
        "2 files in train/depth and 3 in train/image: no train/depth/1.npy",
    ),
    "a label without an image": (lambda r: (r / "train/image/2.npy").unlink(), "no train/image/2.npy"),
    "a name that is no number": (
        lambda r: shutil.copy(r / "train/image/0.npy", r / "train/image/first.npy"),
        "train/image/first.npy, whose name is no number",
    ),
    "another size": (
        lambda r: change(r, "train/label/1.npy", lambda v: v[:, :-1]),
        "train/label/1.npy with 32x63 pixels where images have 32x64",
    ),
    "another shape": (
        lambda r: change(r, "train/normal/1.npy", lambda v: v[:, :, :2]),
        "train/normal/1.npy with labels of shape 32x64x2 instead of HxWx3",
    ),
    "a grey image": (
        lambda r: change(r, "val/image/0.npy", lambda v: v[:, :, 0]),
        "val/image/0.npy with an image of shape 32x64 instead of HxWx3",
    ),
    "a bright image": (
        lambda r: change(r, "val/image/0.npy", lambda v: v * 200),
        r"val/image/0.npy with image values from .* instead of \[0, 1\]",
    ),
    "nothing defined in a split": (
        lambda r: [change(r, f"val/label/{n}.npy", put(..., -1)) for n in (0, 1)],
        "no defined label of semantic in the whole of val",
    ),
    "a label beyond the classes": (
        lambda r: change(r, "train/label/2.npy", put((3, 4), 13)),
        "train/label/2.npy with a label of 13 where the 13 classes end at 12",
    ),
    "a label below -1": (lambda r: change(r, "train/label/2.npy", put((3, 4), -2)), "a label of -2"),
    "half a label": (
        lambda r: change(r, "train/label/2.npy", lambda v: v + 0.5),
        "a label that is not a whole number",
    ),
    "NaN depth": (lambda r: change(r, "train/depth/0.npy", put((1, 1), np.nan)), "train/depth/0.npy with a depth that is NaN"),
    "infinite depth": (lambda r: change(r, "train/depth/0.npy", put((1, 1), np.inf)), "a depth that is NaN or infinite"),
    "negative depth": (lambda r: change(r, "train/depth/0.npy", put((1, 1), -2.5)), "a negative depth, -2.5"),
    "NaN normals": (lambda r: change(r, "val/normal/1.npy", put((1, 1), np.nan)), "a normal that is NaN"),
    "long normals": (
        lambda r: change(r, "val/normal/1.npy", lambda v: 2 * v),
        r"val/normal/1.npy with \d+ normals not of unit length, the first of length 2 ",
    ),
    "a corrupt file": (lambda r: (r / "val/depth/0.npy").write_bytes(b"\x93NUMPY rubbish"), "val/depth/0.npy with a file that is no npy"),
    "half a file": (lambda r: truncate(r / "val/depth/0.npy"), "val/depth/0.npy with a file that is no npy, or a part of one"),
    "a pipe": (lambda r: pipe(r / "val/depth/0.npy"), "val/depth/0.npy with something that is no file"),
    "an empty file": (lambda r: (r / "val/depth/0.npy").write_bytes(b""), "val/depth/0.npy with a file that is no npy"),
    "an array of nothing": (
        lambda r: change(r, "train/image/1.npy", lambda v: v[:0]),
        "train/image/1.npy with an array of shape 0x64x3, which holds nothing",
    ),
    "a pickle": (
        lambda r: np.save(r / "val/depth/0.npy", np.array([Trap()], dtype=object), allow_pickle=True),
        "val/depth/0.npy with Python objects, which are never loaded",
    ),
    "text": (lambda r: np.save(r / "val/label/0.npy", np.array(["a"])), "an array of <U1 instead of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(
    mistake: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, told = MISTAKES[mistake]
    make(root)
    with pytest.raises(UserError, match=told) as raised:
        open_root(root)
    assert str(raised.value).startswith(f"{root}: expected")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "unpickled").exists()


def test_all_mistakes_are_told_together_and_like_ones_once(root: Path) -> None:
    for number in range(3):
        change(root, f"train/label/{number}.npy", put((0, 0), 20 + number))
    change(root, "train/depth/0.npy", put((1, 1), np.nan))
    (root / "val/normal/1.npy").unlink()
    with pytest.raises(UserError) as raised:
        open_root(root)
    told = str(raised.value)
    assert "train/label/0.npy with a label of 20 where the 13 classes end at 12 (and 2 more like it)" in told
    assert "train/depth/0.npy with a depth that is NaN" in told
    assert "no val/normal/1.npy" in told


def test_sizes_that_do_not_halve_five_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        write_frame(tmp_path, split, 0, arrays(rng, 40, 64))
    with pytest.raises(UserError, match="images of 40x64, which does not divide by 32"):
        open_root(tmp_path)
    assert open_root(tmp_path, divisor=8).size == (40, 64)


def test_a_sample_without_labels_is_a_warning(root: Path) -> None:
    change(root, "train/label/1.npy", put(..., -1))
    opened = open_root(root)
    assert opened.unlabelled["train"] == {"semantic": {"1"}, "depth": frozenset(), "normal": frozenset()}
    assert len(opened.warnings) == 1
    assert "1 of 3 images in train have no label of semantic (the first is 1)" in opened.warnings[0]


def test_missing_label_files_are_allowed_when_asked_for(root: Path) -> None:
    (root / "train/depth/1.npy").unlink()
    opened = open_root(root, missing_labels=True)
    assert opened.unlabelled["train"]["depth"] == {"1"}


def test_only_the_folders_of_the_chosen_tasks_and_splits_are_needed(root: Path) -> None:
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val/normal")
    opened = open_root(root, tasks=["depth", "semantic"], splits=["val"])
    assert list(opened.tasks) == ["semantic", "depth"]


def test_a_file_is_read_once_until_it_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    examine = scan_module._examine
    monkeypatch.setattr(scan_module, "_examine", lambda file: read.append(file.path.name) or examine(file))
    first = open_root(root)
    assert len(read) == 5 * 4
    read.clear()
    assert same(open_root(root), first)
    assert read == []
    change(root, "train/depth/2.npy", put((1, 1), np.nan))
    with pytest.raises(UserError, match=r"train/depth/2\.npy"):
        open_root(root)
    assert read == ["2.npy"]


def test_facts_of_another_number_of_classes_do_not_hold(root: Path) -> None:
    open_root(root, tasks=["semantic"])
    with pytest.raises(UserError, match="7 classes end at 6"):
        open_root(root, tasks=["semantic"], dataset="cityscapes7")


def test_a_read_only_root_is_remembered_elsewhere(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root.chmod(0o555)
    try:
        first = open_root(root)
        assert not (root / "scan.json").exists()
        assert len(list((tmp_path / "cache/mtan").glob("dense-*.json"))) == 1
        monkeypatch.setattr(scan_module, "_examine", None)  # would fail if any file were read again
        assert same(open_root(root), first)
    finally:
        root.chmod(0o755)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1, "files": {"train/image/0.npy": "?"}}', '{"format": 99}'])
def test_a_memory_that_cannot_be_read_is_none(root: Path, text: str) -> None:
    (root / "scan.json").write_text(text, encoding="utf-8")
    assert open_root(root).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "expected a JSON object"),
        ('{"format": 9, "dataset": "nyuv2"}', "expected format 1, found 9"),
        ('{"format": 1, "dataset": "nyu"}', "did you mean 'nyuv2'"),
    ],
)
def test_a_description_that_cannot_be_read(root: Path, content: str, told: str) -> None:
    (root / "dataset.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        open_root(root)


def test_the_data_set_is_named_once(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({"format": 1, "dataset": "cityscapes7"}), encoding="utf-8")
    with pytest.raises(UserError, match="expected the data set 'nyuv2', found 'cityscapes7'"):
        open_root(root, dataset="nyuv2")
    with pytest.raises(UserError, match="did you mean 'nyuv2'"):
        open_root(root, dataset="nyu2")


def test_inspect_tells_what_is_there(root: Path, mtan: Mtan) -> None:
    change(root, "train/label/1.npy", put(..., -1))
    told = document(mtan("dense", "inspect", root, "--json"))
    assert told["splits"]["train"] == {"images": 3, "labelled": {"semantic": 2, "depth": 3, "normal": 3}}
    assert told["size"] == [HEIGHT, WIDTH]
    plain = mtan("dense", "inspect", root, "--tasks", "depth")
    assert (plain.code, "2 images, 2 with depth" in plain.out) == (0, True)


def test_inspect_refuses_in_one_sentence(root: Path, tmp_path: Path, mtan: Mtan) -> None:
    (root / "val/depth/0.npy").unlink()
    outcome = mtan("dense", "inspect", root)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    nowhere = mtan("dense", "inspect", tmp_path / "nowhere")
    assert nowhere.code == 2
    assert "Expected a folder with train and val" in nowhere.err


@pytest.mark.shared
def test_the_real_roots_are_good(shared: Path) -> None:
    small = open_root(shared / "nyuv2-dev")
    assert (small.size, len(small.frames["train"]), len(small.frames["val"])) == ((96, 128), 100, 50)
    assert open_root(shared / "nyuv2-dev-288x384").size == (288, 384)
