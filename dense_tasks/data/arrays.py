"""One npy file as an array: memory-mapped, never unpickled, its shape and numbers checked."""

from pathlib import Path
from threading import Lock

import numpy as np
import torch

from dense_tasks.tasks import Task

IMAGE = "image"  # the folder of the images
_BRIGHTEST = 255  # of an image in whole numbers
_ROUNDING = 1e-3
# numpy reads headers by `ast`, which in Python 3.11 fails now and then where several threads parse at the same time.
_HEADERS = Lock()


class ArrayError(Exception):
    """What is wrong with a file, as the end of a sentence "found ..."."""


def open_array(path: Path) -> np.ndarray:
    """Map a file's array into memory. Raises ArrayError for a file that is no whole npy of real numbers."""
    if path.exists() and not path.is_file():  # a pipe, for one, would be waited for
        raise ArrayError("something that is no file")
    try:
        with _HEADERS:
            array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, SyntaxError, TypeError) as problem:
        if "Python objects" in str(problem):
            raise ArrayError("Python objects, which are never loaded") from None
        raise ArrayError("a file that is no npy, or a part of one") from None
    if array.dtype.kind not in "iuf":
        raise ArrayError(f"an array of {array.dtype} instead of numbers")
    if not array.size:
        raise ArrayError(f"an array of shape {shape_text(array.shape)}, which holds nothing")
    return array


def image_array(path: Path) -> np.ndarray:
    """An image as (H, W, 3). Raises ArrayError."""
    array = open_array(path)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ArrayError(f"an image of shape {shape_text(array.shape)} instead of HxWx3")
    return array


def label_array(path: Path, task: Task) -> np.ndarray:
    """A task's labels as (H, W), or (H, W, channels) where they are real numbers. Raises ArrayError."""
    array = open_array(path)
    flat = task.dtype == torch.int64
    if flat and array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    elif not flat and task.label_channels == 1 and array.ndim == 2:
        array = array[:, :, None]
    right = array.ndim == 2 if flat else array.ndim == 3 and array.shape[2] == task.label_channels
    if not right:
        wanted = "HxW" if flat else f"HxWx{task.label_channels}"
        raise ArrayError(f"labels of shape {shape_text(array.shape)} instead of {wanted}")
    return array


def image_problem(image: np.ndarray) -> str | None:
    """What is wrong with the numbers of an image: real ones lie in [0, 1], whole ones in 0 to 255."""
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return "an image with NaN or infinite values"
    top = 1 + _ROUNDING if image.dtype.kind == "f" else _BRIGHTEST
    if low >= -_ROUNDING and high <= top:
        return None
    wanted = "[0, 1]" if image.dtype.kind == "f" else f"0 to {_BRIGHTEST}"
    return f"image values from {low:g} to {high:g} instead of {wanted}"


def copy_image(array: np.ndarray, into: np.ndarray) -> None:
    """Copy an image to float32 in [0, 1]."""
    np.copyto(into, array, casting="unsafe")
    if array.dtype.kind != "f":
        into /= _BRIGHTEST


def shape_text(shape: tuple[int, ...]) -> str:
    """As people write it: 96x128."""
    return "x".join(map(str, shape)) or "one number"
