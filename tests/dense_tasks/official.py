"""Small files in the official formats: NYUv2's MATLAB files and Cityscapes' folders."""

from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

from dense_tasks.data.normals import NYU_CAMERA
from dense_tasks.data.nyuv2 import FORTY_TO_THIRTEEN
from tests.dense_tasks.scenes import Scene, plane

NYU_HEIGHT, NYU_WIDTH = 96, 128  # a fifth of the official size, in the same proportion
TRAIN, TEST = (5, 1, 4), (2, 3)  # frames from 1, in no order


def nyu_scene(number: int) -> Scene:
    """A plane that is different in every frame."""
    camera = NYU_CAMERA.resized(NYU_WIDTH / 640, NYU_HEIGHT / 480)
    return plane(camera, NYU_HEIGHT, NYU_WIDTH, (0.1 * number, 0.2 - 0.1 * number, -1), 2.0 + number)


def nyu_image(number: int) -> np.ndarray:
    """Smooth colours, uint8."""
    return np.rint(255 * nyu_scene(number).image).astype(np.uint8)


def nyu_labels(number: int) -> np.ndarray:
    """Official numbers, 0 unlabelled to 894."""
    return np.random.default_rng(number).integers(0, 895, (NYU_HEIGHT, NYU_WIDTH)).astype(np.uint16)


def class_of_40(number: int) -> int:
    """The tests' own map of the 894 to 40."""
    return (number * 7) % 40 + 1


def write_nyuv2(folder: Path, map_13: bool = True) -> Path:
    """All files of the official NYUv2, five frames. HDF5 holds MATLAB's arrays with their axes in reverse."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = range(1, 6)
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file["images"] = np.stack([nyu_image(n).transpose(2, 1, 0) for n in frames])
        file["depths"] = np.stack([nyu_scene(n).depth.T for n in frames]).astype(np.float32)
        raw = file["depths"][()].copy()
        raw[:, :10] = 0  # the sensor's hole: the left ten columns
        file["rawDepths"] = raw
        file["labels"] = np.stack([nyu_labels(n).T for n in frames])
        scenes = file.create_dataset("scenes", (1, 5), dtype=h5py.ref_dtype)
        for n in frames:
            name = file.create_dataset(
                f"#refs#/{n}", data=np.array([[ord(c)] for c in f"kitchen_{n:04}"], dtype=np.uint16)
            )
            scenes[0, n - 1] = name.ref
    savemat(folder / "splits.mat", {"trainNdxs": np.array(TRAIN)[:, None], "testNdxs": np.array(TEST)[:, None]})
    savemat(folder / "classMapping40.mat", {"mapClass": np.array([[class_of_40(n) for n in range(1, 895)]])})
    if map_13:
        savemat(folder / "class13Mapping.mat", {"classMapping13": {"labels": np.array([FORTY_TO_THIRTEEN])}})
    return folder


CITY_HEIGHT, CITY_WIDTH = 128, 256
CITY_FRAMES = {
    "train": ("bochum_000000_000313", "aachen_000001_000019", "aachen_000000_000019"),
    "val": ("lindau_000000_000019",),
}


def city_arrays(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, label ids and 16-bit disparity; blocks of 8 pixels, so that an eighth in size loses nothing."""
    rng = np.random.default_rng(sum(map(ord, name)))
    small = (CITY_HEIGHT // 2, CITY_WIDTH // 2)
    image = rng.integers(0, 256, (*small, 3)).astype(np.uint8)
    ids = rng.integers(0, 34, small).astype(np.uint8)
    disparity = (rng.integers(0, 32258, small) * (rng.random(small) < 0.8)).astype(np.uint16)
    image, ids, disparity = (np.kron(values, np.ones((2, 2, 1) if values.ndim == 3 else (2, 2), dtype=values.dtype))
                             for values in (image, ids, disparity))  # fmt: skip
    return image, ids, disparity


def write_cityscapes(folder: Path) -> Path:
    """leftImg8bit, gtFine and disparity of four frames."""
    for split, names in CITY_FRAMES.items():
        for name in names:
            kinds = {"leftImg8bit": "leftImg8bit", "gtFine": "gtFine_labelIds", "disparity": "disparity"}
            for (kind, ending), values in zip(kinds.items(), city_arrays(name), strict=True):
                path = folder / kind / split / name.split("_")[0] / f"{name}_{ending}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return folder
