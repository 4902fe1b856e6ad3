"""Resizing of what official files hold: images by area, labels and depth by the nearest pixel."""

import re

import numpy as np
import torch
from torch.nn import functional as F

from mtan_core.errors import UserError

_DIVISOR = 32  # a SegNet halves its input five times

Size = tuple[int, int]


def parse_size(text: str, divisor: int = _DIVISOR) -> Size:
    """(height, width) of a text such as "288x384". Raises UserError for another one, and where a side does not divide."""
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip())
    if not found:
        raise UserError(f"--size: expected height x width, such as 288x384, found '{text}'.")
    height, width = int(found[1]), int(found[2])
    if not height or not width or height % divisor or width % divisor:
        raise UserError(f"--size: expected a height and a width that divide by {divisor}, found {text}.")
    return height, width


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """An image (H, W, 3) of uint8, or of real numbers in [0, 1], as float16 in [0, 1], bilinear with the filter widened as the
    image shrinks."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float()
    if image.dtype.kind != "f":
        planes /= 255
    resized = F.interpolate(planes, size=size, mode="bilinear", antialias=True)[0]
    return resized.clamp(0, 1).permute(1, 2, 0).contiguous().numpy().astype(np.float16)


def resize_nearest(values: np.ndarray, size: Size) -> np.ndarray:
    """Each pixel of the result takes the value of the pixel in which its centre lies, so that nothing is mixed."""
    rows, columns = (
        ((np.arange(length) + 0.5) * full / length).astype(np.int64)
        for length, full in zip(size, values.shape[:2], strict=True)
    )
    return np.ascontiguousarray(values[rows[:, None], columns[None, :]])
