"""Cityscapes from its official folders: leftImg8bit, gtFine and disparity, each `<split>/<city>/<frame>_<kind>.png`."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dense_tasks.data.prepare import Source, SourceFrame
from dense_tasks.data.resizing import Size, resize_image, resize_nearest
from dense_tasks.datasets import CITYSCAPES_CLASSES, CITYSCAPES_GROUPS, DATASETS
from mtan_core.errors import UserError

DEFAULT_SIZE = (128, 256)
_KINDS = {
    "leftImg8bit": "leftImg8bit.png",
    "gtFine": "gtFine_labelIds.png",
    "disparity": "disparity.png",
}

# The official label ids of the 19 classes, in their order, and the ids that only the seven groups take in.
_IDS_19 = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_MORE_IDS = {9: "flat", 10: "flat", 14: "construction", 15: "construction", 16: "construction", 18: "object",
             29: "vehicle", 30: "vehicle"}  # fmt: skip


def cityscapes_source(path: Path, classes: int = 7, size: Size = DEFAULT_SIZE) -> Source:
    """The fine annotations of train and val. Raises UserError for missing folders, and images without partner."""
    if classes not in (2, 7, 19):
        raise UserError(f"--classes: expected 2, 7 or 19, found {classes}.")
    frames: list[SourceFrame] = []
    for split in ("train", "val"):
        frames += _frames(path, split)
    lut = label_map(classes)
    return Source(
        DATASETS[f"cityscapes{classes}"],
        {"size": size, "classes": classes},
        ("image", "label", "depth"),
        frames,
        lambda frame: _arrays(path, frame, size, lut),
        threads=min(4, os.cpu_count() or 1),
    )


def label_map(classes: int) -> np.ndarray:
    """The label (int8) for each official label id 0 to 255; -1 for void, and for what is none of the 19 where those are asked for."""
    labels = np.full(256, -1, dtype=np.int8)
    groups = {number: group for number, (_, _, group) in zip(_IDS_19, CITYSCAPES_CLASSES, strict=True)}
    if classes == 19:
        labels[list(_IDS_19)] = np.arange(19)
        return labels
    for number, group in (groups | _MORE_IDS).items():
        labels[number] = CITYSCAPES_GROUPS.index(group) if classes == 7 else group in ("human", "vehicle")
    return labels


def inverse_depth(disparity: np.ndarray) -> np.ndarray:
    """From the file's 16-bit values p: 0 is unknown and stays 0, else the disparity is (p - 1) / 256 pixels of the full image;
    it is divided by 256 once more, so that the greatest, 126 pixels, becomes 0.4922 as in the authors' files."""
    return np.where(disparity > 0, (disparity.astype(np.float32) - 1) / 2**16, 0).astype(np.float32)


def _frames(root: Path, split: str) -> list[SourceFrame]:
    """All images of a split by city and name, whose annotation and disparity must be there."""
    for kind in _KINDS:
        if not (root / kind / split).is_dir():
            raise UserError(f"Expected the official folder {kind}/{split} in {root}, found none.")
    ending = _KINDS["leftImg8bit"]
    images = sorted((root / "leftImg8bit" / split).glob(f"*/*_{ending}"))
    if not images:
        raise UserError(f"Expected images <city>/<frame>_{ending} in {root / 'leftImg8bit' / split}, found none.")
    names = [image.name.removesuffix(f"_{ending}") for image in images]
    lacking = [
        partner
        for name in names
        for kind in ("gtFine", "disparity")
        if not (partner := _file(root, kind, split, name)).is_file()
    ]
    if lacking:
        raise UserError(
            f"Expected an annotation and a disparity for each of the {len(images)} images of {split}, "
            f"found {len(lacking)} missing, the first {lacking[0]}."
        )
    return [SourceFrame(split, place, {"frame": name}) for place, name in enumerate(names)]


def _file(root: Path, kind: str, split: str, name: str) -> Path:
    return root / kind / split / name.partition("_")[0] / f"{name}_{_KINDS[kind]}"


def _arrays(root: Path, frame: SourceFrame, size: Size, labels: np.ndarray) -> Mapping[str, np.ndarray]:
    image, ids, disparity = (_read(_file(root, kind, frame.split, frame.name["frame"])) for kind in _KINDS)
    if image.ndim != 3 or image.shape[2] != 3 or not image.shape[:2] == ids.shape == disparity.shape:
        shapes = ", ".join(str(array.shape) for array in (image, ids, disparity))
        raise UserError(
            f"{root}: expected colour, labels and disparity of one size for {frame.name['frame']}, found {shapes}."
        )
    if ids.dtype != np.uint8 or image.dtype != np.uint8 or disparity.dtype.itemsize < 2:
        bits = ", ".join(str(8 * array.dtype.itemsize) for array in (image, ids, disparity))
        raise UserError(
            f"{root}: expected colour and labels of 8 bits and disparity of 16 for {frame.name['frame']}, found {bits}."
        )
    return {
        "image": resize_image(image, size),
        "label": labels[resize_nearest(ids, size)],
        "depth": inverse_depth(resize_nearest(disparity, size))[:, :, None],
    }


def _read(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError):
        raise UserError(f"{path}: expected a PNG image, found a damaged file.") from None
