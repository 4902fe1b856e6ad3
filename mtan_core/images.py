"""Image files: found, refused by their size before memory is taken, and read."""

import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mtan_core.errors import UserError

SMALLEST_SIDE, MOST_PIXELS = 4, 89_000_000  # of a file: below nothing is to be seen; above the decoder refuses


def find_images(paths: Sequence[Path], also: Sequence[str] = ()) -> list[Path]:
    """Files as they are named; of a folder, all image files in it and below, by their endings (and those of `also`), sorted.

    Raises UserError for a path that is not there, and for a folder without images.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(_images_below(path, also)) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"Expected a folder with image files, found none in {path}.")
        files += inside
    absent = [path for path in files if not path.is_file()]
    if absent:
        raise UserError(f"Expected an image file or a folder of images, found nothing at {absent[0]}.")
    return files


def _images_below(folder: Path, also: Sequence[str]) -> Iterator[Path]:
    from PIL import Image  # loads decoders

    endings = {*Image.registered_extensions(), *also}
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in endings and not hidden and path.is_file():
            yield path


def read_pixels(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as RGB pixels.

    Raises UserError for a file that is missing, no whole image, or of a size that cannot be worked with.
    """
    from mtan_core.decode import UnreadableError, decode  # loads decoders

    try:
        data = path.read_bytes()
        _check_size(data, path)
        return decode(data)
    except (OSError, UnreadableError) as problem:
        told = problem.strerror if isinstance(problem, OSError) else problem
        raise UserError(f"Expected an image file, found none that can be read: {path} ({told}).") from None


def _check_size(data: bytes, path: Path) -> None:
    """Refuse by what the header says, before memory is taken. A header that is unreadable is for the decoder to tell."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise UserError(f"Expected an image of at most {MOST_PIXELS:,} pixels, found a larger one: {path}.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return
    if width * height > MOST_PIXELS:
        raise UserError(f"Expected an image of at most {MOST_PIXELS:,} pixels, found {width}x{height}: {path}.")
    if min(width, height) < SMALLEST_SIDE:
        raise UserError(f"Expected an image of at least {SMALLEST_SIDE} pixels a side, found {width}x{height}: {path}.")
