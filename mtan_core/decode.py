"""From the bytes of an image file to RGB pixels."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from simplejpeg import decode_jpeg

Pixels = NDArray[np.uint8]
_JPEG = b"\xff\xd8\xff"


class UnreadableError(ValueError):
    """An image file that cannot be decoded whole."""


def decode(data: bytes | bytearray, room: NDArray[np.uint8] | None = None) -> Pixels:
    """The image as (height, width, 3) uint8 RGB; grey, CMYK, palette and 16-bit images are converted.

    Common JPEGs go through simplejpeg, which holds no interpreter lock while it works, all else through Pillow; on
    the same JPEG the two agree. A common JPEG is a view of `room` (flat) where that is large enough. Raises UnreadableError
    for data that is cut off, damaged, or no image.
    """
    if data[:3] == _JPEG:
        try:
            return decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, buffer=room)
        except ValueError:  # damaged, of other colours, or too large for the room
            return _decode_slowly(data)
    return _decode_slowly(data)


def _decode_slowly(data: bytes | bytearray) -> Pixels:
    """Decode by Pillow, which knows every format and colour mode."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion would clip at 255
                    return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
                return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:  # whose words are about the object that the data lie in
        raise UnreadableError("of no image format that is known") from None
    except (
        Exception
    ) as problem:  # Pillow's decoders raise whatever they stumble over: OSError, ValueError, SyntaxError, ...
        raise UnreadableError(str(problem) or type(problem).__name__) from None
