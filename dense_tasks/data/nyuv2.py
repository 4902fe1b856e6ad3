"""NYUv2 from its official files: `nyu_depth_v2_labeled.mat` (MATLAB 7.3, which is HDF5), `splits.mat` and class maps.

- `nyu_depth_v2_labeled.mat`: `images` (N, 3, W, H) uint8, `depths` (N, W, H) metres, `labels` (N, W, H), 0 unlabelled and
  1 to 894, as HDF5 shows MATLAB's arrays, whose order is the reverse; perhaps `rawDepths` (0 unknown), `scenes`, and
  `normals` (N, 3, W, H), which is not among the official ones.
- `splits.mat`: `trainNdxs` and `testNdxs`, from 1. The test images are the root's `val`, as everybody does.
- `classMapping40.mat`: `mapClass`, the class of 40 for each of the 894. `class13Mapping.mat`: `classMapping13`, a structure
  whose first field is the class of 13 for each of the 40; where it is absent the same map stands here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dense_tasks.data.arrays import ArrayError
from dense_tasks.data.normals import NYU_CAMERA, normals_from_depth
from dense_tasks.data.prepare import Source, SourceFrame
from dense_tasks.data.resizing import Size, resize_image, resize_nearest
from dense_tasks.datasets import DATASETS
from dense_tasks.tasks import tasks
from mtan_core.errors import UserError

LABELLED, SPLITS_FILE = "nyu_depth_v2_labeled.mat", "splits.mat"
MAP_40, MAP_13 = "classMapping40.mat", "class13Mapping.mat"
DEFAULT_SIZE = (288, 384)
_OFFICIAL = 894  # the last of the official numbers of labels

# The class of 13 (from 1, in the order of the data set's names) for each of the 40: SemanticFusion's and SceneNet's.
FORTY_TO_THIRTEEN = (12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5,
                     7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7)  # fmt: skip


def nyuv2_source(path: Path, size: Size = DEFAULT_SIZE, raw_depth: bool = False) -> Source:
    """The files in the folder `path`, or beside the labelled `.mat` that it is. `raw_depth`: with the sensor's holes.

    Raises UserError for files that are missing or of another format, and for splits and classes that do not fit.
    """
    if not path.exists():
        raise UserError(f"Expected a folder with {LABELLED}, or that file, found nothing at {path}.")
    folder = path if path.is_dir() else path.parent
    labelled = path if path.is_file() else _find(folder, LABELLED)
    file = open_hdf5(labelled)
    depths = "rawDepths" if raw_depth else "depths"
    count = _check_datasets(labelled, file, depths)
    classes = _class_map(folder)
    numbers = _splits(_find(folder, SPLITS_FILE), count)
    scenes = _scenes(labelled, file, count)
    frames = [
        SourceFrame(split, place, {"frame": number, **({"scene": scenes[number - 1]} if scenes else {})})
        for split, chosen in numbers.items()
        for place, number in enumerate(chosen)
    ]
    return Source(
        DATASETS["nyuv2"],
        {"size": size, "depth": depths, "normals": "given" if "normals" in file else "fitted", "bytes": labelled.stat().st_size},
        ("image", "label", "depth", "normal"),
        frames,
        lambda frame: _readable(labelled, frame, lambda place: _arrays(file, place, size, depths, classes)),
    )  # fmt: skip


def _readable(
    path: Path, frame: SourceFrame, read: Callable[[int], Mapping[str, np.ndarray]]
) -> Mapping[str, np.ndarray]:
    """The arrays of a frame. Raises UserError where the file is damaged or wrong inside, which shows only on reading."""
    number = int(frame.name["frame"])
    try:
        return read(number - 1)
    except OSError:
        raise UserError(f"{path}: expected a whole file, found one that is damaged at frame {number}.") from None
    except ArrayError as problem:
        raise UserError(f"{path}: expected the official numbers, found frame {number} with {problem}.") from None


def _arrays(file: Any, place: int, size: Size, depths: str, classes: np.ndarray) -> Mapping[str, np.ndarray]:
    """A frame's arrays; MATLAB's order of axes is turned round."""
    depth = resize_nearest(file[depths][place].T.astype(np.float32), size)
    depth[~np.isfinite(depth) | (depth < 0)] = 0
    label = classes[_official(resize_nearest(file["labels"][place].T.astype(np.int64), size))]
    image = file["images"][place].transpose(2, 1, 0)
    if "normals" in file:
        normal = _units(resize_nearest(file["normals"][place].transpose(2, 1, 0).astype(np.float32), size))
    else:
        normal = normals_from_depth(depth, NYU_CAMERA.resized(size[1] / 640, size[0] / 480))
    return {
        "image": resize_image(image, size),
        "label": label,
        "depth": depth[:, :, None],
        "normal": normal.astype(np.float16),
    }


def _official(labels: np.ndarray) -> np.ndarray:
    """The labels themselves. Raises ArrayError for a number that has no class: one below 0 would take the last one's."""
    low, high = labels.min(), labels.max()
    if low < 0 or high > _OFFICIAL:
        raise ArrayError(f"a label of {low if low < 0 else high} where the official numbers are 0 to {_OFFICIAL}")
    return labels


def _units(normals: np.ndarray) -> np.ndarray:
    """The normals themselves. Raises ArrayError for what training would refuse."""
    problem = tasks()["normal"].problem(normals)
    if problem:
        raise ArrayError(problem)
    return normals


def _find(folder: Path, name: str) -> Path:
    if (folder / name).is_file():
        return folder / name
    raise UserError(f"Expected {name} in {folder}, found no such file.")


def open_hdf5(path: Path) -> Any:
    """An HDF5 file, open for reading for as long as it is held. Raises UserError for another format, and a part of a file."""
    import h5py

    if not h5py.is_hdf5(path):
        raise UserError(f"{path}: expected a MATLAB 7.3 file (HDF5), found another format or a part of a file.")
    try:
        return h5py.File(path, "r")
    except OSError:
        raise UserError(
            f"{path}: expected a whole MATLAB 7.3 file (HDF5), found a damaged or incomplete one."
        ) from None


def _check_datasets(path: Path, file: Any, depths: str) -> int:
    """The number of frames. Raises UserError for a data set that is missing or of another shape than the images want."""
    for name in ("images", "labels", depths):
        if not hasattr(file.get(name), "shape"):
            raise UserError(f"{path}: expected the data set '{name}', found {', '.join(sorted(file)) or 'none'}.")
    images = file["images"].shape
    if file["images"].dtype != np.uint8:
        raise UserError(f"{path}: expected images of uint8, found {file['images'].dtype}.")
    if len(images) != 4 or images[1] != 3:
        raise UserError(f"{path}: expected images of shape (frames, 3, width, height), found {images}.")
    wanted = {"labels": (images[0], *images[2:]), depths: (images[0], *images[2:]), "normals": images}
    for name, shape in wanted.items():
        if name in file and file[name].shape != shape:
            raise UserError(f"{path}: expected '{name}' of shape {shape}, found {file[name].shape}.")
    return int(images[0])


def _scenes(path: Path, file: Any, count: int) -> list[str] | None:
    """The name of the scene that each frame is from, where the file has them: references to arrays of characters."""
    if "scenes" not in file:
        return None
    try:
        scenes = ["".join(map(chr, np.ravel(file[reference]))) for reference in np.ravel(file["scenes"])]
    except (ValueError, TypeError, OSError):
        scenes = []
    if len(scenes) != count:
        raise UserError(f"{path}: expected a name for each of the {count} frames in 'scenes', found {len(scenes)}.")
    return scenes


def _matlab(path: Path, *names: str) -> list[Any]:
    """Variables of a small MATLAB file, of whatever version. Raises UserError."""
    import h5py
    from scipy.io import loadmat  # type: ignore[attr-defined]

    try:
        found: Any = {name: data[()].T for name, data in h5py.File(path, "r").items() if hasattr(data, "shape")} \
            if h5py.is_hdf5(path) else loadmat(path)  # fmt: skip
    except Exception:  # a damaged file is told by whatever its reader stumbles over
        raise UserError(f"{path}: expected a MATLAB file, found another format or a part of a file.") from None
    for name in names:
        if name not in found:
            known = ", ".join(sorted(key for key in found if not key.startswith("__")))
            raise UserError(f"{path}: expected the variable '{name}', found {known or 'none'}.")
    return [found[name] for name in names]


def _whole(path: Path, name: str, values: Any) -> np.ndarray:
    """A variable's numbers in a row. Raises UserError for what are none, or not whole."""
    numbers = np.ravel(values)
    if numbers.dtype.kind not in "iuf" or not (np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()):
        raise UserError(f"{path}: expected whole numbers in {name}, found something else.")
    return numbers.astype(np.int64)


def _splits(path: Path, count: int) -> dict[str, list[int]]:
    """Frame numbers from 1 of train and val, in the file's order."""
    names = ("trainNdxs", "testNdxs")
    train, test = (_whole(path, *found).tolist() for found in zip(names, _matlab(path, *names), strict=True))
    for number in [*train, *test]:
        if not 1 <= number <= count:
            raise UserError(f"{path}: expected frames from 1 to {count}, found {number}.")
    if len({*train, *test}) < len(train) + len(test) or not train or not test:
        raise UserError(f"{path}: expected every frame in one split, found one twice or an empty split.")
    return {"train": train, "val": test}


def _class_map(folder: Path) -> np.ndarray:
    """The label for each of the official numbers 0 to 894, int8; 0 is undefined."""
    path = _find(folder, MAP_40)
    forty = _whole(path, "mapClass", _matlab(path, "mapClass")[0])
    if len(forty) != _OFFICIAL or forty.min() < 1 or forty.max() > 40:
        raise UserError(f"{path}: expected {_OFFICIAL} numbers from 1 to 40 in mapClass, found {len(forty)}.")
    thirteen = np.array(FORTY_TO_THIRTEEN)
    if (folder / MAP_13).is_file():
        thirteen = _thirteen(folder / MAP_13)
    return np.concatenate([[-1], thirteen[forty - 1] - 1]).astype(np.int8)


def _thirteen(path: Path) -> np.ndarray:
    value = _matlab(path, "classMapping13")[0]
    while isinstance(value, np.ndarray) and value.size and (value.dtype.names or value.dtype == object):
        value = value.flat[0]  # structures and cells of one element
        value = value[0] if isinstance(value, np.void) else value
    numbers = _whole(path, "classMapping13", value)
    if len(numbers) != 40 or numbers.min() < 1 or numbers.max() > 13:
        raise UserError(f"{path}: expected 40 numbers from 1 to 13 in classMapping13, found {len(numbers)}.")
    return numbers
