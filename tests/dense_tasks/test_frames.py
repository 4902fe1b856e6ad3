"""Batches: any type of number, labels that are missing, and augmentation that a resumed run repeats."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dense_tasks.data.augmentation import Augmentation
from dense_tasks.data.frames import Frames
from dense_tasks.data.root import open_root
from mtan_core.errors import UserError
from tests.dense_tasks.roots import arrays, write_frame, write_root

CPU = torch.device("cpu")


def frames_of(root: Path, split: str = "train", **options: bool) -> Frames:
    return Frames(open_root(root, **options), split, CPU)  # type: ignore[arg-type]


def test_a_batch_holds_what_the_files_hold(tmp_path: Path) -> None:
    frames = frames_of(write_root(tmp_path))
    batch = frames.batch(np.array([2, 0]))
    assert batch.images.shape == (2, 3, 32, 64)
    for place, number in enumerate((2, 0)):
        for folder, values in {
            "image": batch.images,
            "depth": batch.labels["depth"],
            "normal": batch.labels["normal"],
        }.items():
            expected = np.load(tmp_path / f"train/{folder}/{number}.npy").astype(np.float32)
            np.testing.assert_array_equal(values[place].permute(1, 2, 0).numpy(), expected)
        np.testing.assert_array_equal(
            batch.labels["semantic"][place].numpy(), np.load(tmp_path / f"train/label/{number}.npy")
        )
    assert [values.dtype for values in batch.labels.values()] == [torch.int64, torch.float32, torch.float32]


@pytest.mark.parametrize(
    ("folder", "kind", "order"),
    [
        ("label", "int8", "C"), ("label", "uint8", "F"), ("label", ">i4", "C"), ("label", "float64", "C"),
        ("label", "float16", "F"), ("depth", "float16", "F"), ("depth", "float64", "C"), ("depth", ">f4", "C"),
        ("depth", "uint16", "C"), ("normal", "float16", "C"), ("normal", "int8", "C"), ("image", "float16", "C"),
        ("image", "float64", "F"), ("image", "uint8", "C"), ("image", "int64", "C"),
    ],
)  # fmt: skip
def test_any_type_of_number_is_read(tmp_path: Path, folder: str, kind: str, order: str) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        frame = arrays(rng)
        frame["label"] = np.abs(frame["label"])
        values = frame[folder]
        if np.dtype(kind).kind in "iu":
            values = np.rint(values * 255) if folder == "image" else np.trunc(values)
        if folder == "normal" and kind == "int8":
            values = np.eye(3)[rng.integers(0, 3, values.shape[:2])]
        frame[folder] = np.asarray(values.astype(kind), order=order)  # type: ignore[call-overload]
        write_frame(tmp_path, split, 0, frame)
    batch = frames_of(tmp_path).batch(np.array([0]))
    raw = np.load(tmp_path / f"train/{folder}/0.npy").astype(np.float64)
    task = {"label": "semantic"}.get(folder, folder)
    found = batch.images if folder == "image" else batch.labels[task]
    found = found[0] if found.ndim == 3 else found[0].permute(1, 2, 0)
    whole = folder == "image" and np.dtype(kind).kind in "iu"
    np.testing.assert_allclose(found.numpy(), raw / 255 if whole else raw, rtol=1e-6)


def test_flat_depth_and_deep_labels_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        frame = arrays(rng)
        write_frame(tmp_path, split, 0, frame | {"depth": frame["depth"][..., 0], "label": frame["label"][..., None]})
    batch = frames_of(tmp_path).batch(np.array([0]))
    assert batch.labels["depth"].shape == (1, 1, 32, 64)
    assert batch.labels["semantic"].shape == (1, 32, 64)


def test_missing_labels_are_undefined_and_leave_loss_and_metrics_alone(tmp_path: Path) -> None:
    root = write_root(tmp_path)
    for folder in ("label", "depth", "normal"):
        (root / f"train/{folder}/1.npy").unlink()
    frames = frames_of(root, missing_labels=True)
    alone, both = frames.batch(np.array([0])), frames.batch(np.array([1, 0]))
    for name, task in frames.root.tasks.items():
        assert (both.labels[name][0] == task.undefined).all()
        outputs = task.finish(torch.randn(2, task.channels, 32, 64))
        loss, expected = task.loss(outputs, both.labels[name]), task.loss(outputs[1:], alone.labels[name])
        assert loss is not None and expected is not None
        torch.testing.assert_close(loss, expected)
        assert task.loss(outputs[:1], both.labels[name][:1]) is None


def test_a_file_that_changes_after_the_look_is_told(tmp_path: Path) -> None:
    frames = frames_of(write_root(tmp_path))
    (tmp_path / "train/depth/1.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"depth/1.npy: expected the array that was there"):
        frames.batch(np.array([1]))
    np.save(tmp_path / "train/image/0.npy", np.zeros((16, 16, 3)))
    with pytest.raises(UserError, match="the file has changed"):
        frames.batch(np.array([0]))


def test_chunks_cover_the_split_in_order(tmp_path: Path) -> None:
    frames = frames_of(write_root(tmp_path))
    assert [chunk.tolist() for chunk in frames.chunks(2)] == [[0, 1], [2]]


AUGMENTED = Augmentation((1.0, 1.2, 1.5), mirror=True)


def test_augmentation_is_off_by_default(tmp_path: Path) -> None:
    frames = frames_of(write_root(tmp_path))
    plain, trained = frames.batch(np.arange(3)), frames.training(np.arange(3), 5, Augmentation(), seed=0)
    assert torch.equal(plain.images, trained.images)


def test_augmentation_depends_on_seed_and_draw_alone(tmp_path: Path) -> None:
    frames, places = frames_of(write_root(tmp_path)), np.arange(3)
    first = frames.training(places, 7, AUGMENTED, seed=1)
    frames.training(places, 8, AUGMENTED, seed=1)
    again = frames_of(tmp_path).training(places, 7, AUGMENTED, seed=1)
    assert torch.equal(first.images, again.images)
    assert all(torch.equal(first.labels[name], again.labels[name]) for name in first.labels)
    others = [frames.training(places, 8, AUGMENTED, seed=1), frames.training(places, 7, AUGMENTED, seed=2)]
    assert not any(torch.equal(first.images, other.images) for other in others)
