"""Answers to single image files: found, read, made as large as official images, and shown to a run in batches."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from decathlon.specs import DomainSpec, Fit
from decathlon.views import centre_boxes, normalise, resample, resize_whole
from mtan_core.errors import UserError
from mtan_core.network import AttentionNetwork
from mtan_core.progress import Advance, progress

if TYPE_CHECKING:
    from decathlon.runs import Run

SHORTER_SIDE = 72  # of the official images, in pixels
SMALLEST_SIDE, MOST_PIXELS = 4, 89_000_000  # of a file: below nothing is to be seen; above the decoder refuses
BATCH = 32  # images per forward pass
PATIENCE = 2.0  # seconds until a progress bar shows


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, likeliest first."""

    path: Path
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; probabilities are fractions."""
        rows = zip(self.labels, self.probabilities, strict=True)
        return {"image": str(self.path), "classes": [{"name": name, "probability": p} for name, p in rows]}


def predict_paths(run: "Run", paths: Sequence[Path], domain: str, top: int = 5) -> list[Prediction]:
    """The likeliest classes of image files, and of those that lie in folders, in the order given.

    Probabilities are those of fp32. Raises UserError for an unknown domain, a folder without images, and a file that is
    missing, no whole image, or too small or large.
    """
    spec, fit, size = run.spec(domain), run.fit(domain), run.config.image_size
    files = find_images(paths)
    found: list[Prediction] = []
    with _patient_progress("predicting", len(files)) as advance:
        for start in range(0, len(files), BATCH):
            chunk = files[start : start + BATCH]
            images = []
            for path in chunk:
                images.append(preprocess(read_image(path), spec, fit, size, run.device))
                advance()
            found += _best(run.network, chunk, torch.cat(images), spec, top)
    return found


def predict_file(
    network: AttentionNetwork, path: Path, spec: DomainSpec, fit: Fit, size: int, top: int = 5
) -> Prediction:
    """Predict one file, in evaluation mode. Raises UserError for a file that is missing or no whole image."""
    device = next(network.parameters()).device
    return _best(network, [path], preprocess(read_image(path), spec, fit, size, device), spec, top)[0]


@torch.inference_mode()
def _best(
    network: AttentionNetwork, paths: Sequence[Path], images: Tensor, spec: DomainSpec, top: int
) -> list[Prediction]:
    logits = network(images.contiguous(memory_format=torch.channels_last), spec.name)
    best = logits.double().softmax(1).cpu().topk(min(top, spec.classes))
    rows = zip(paths, best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Prediction(path, tuple(spec.class_names[i] for i in places), tuple(values)) for path, places, values in rows
    ]


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as they are named; of a folder, all image files in it and below, by their endings, sorted.

    Raises UserError for a path that is not there, and for a folder without images.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(_images_below(path)) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"Expected a folder with image files, found none in {path}.")
        files += inside
    absent = [path for path in files if not path.is_file()]
    if absent:
        raise UserError(f"Expected an image file or a folder of images, found nothing at {absent[0]}.")
    return files


def _images_below(folder: Path) -> Iterator[Path]:
    from PIL import Image  # loads decoders

    endings = Image.registered_extensions()
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in endings and not hidden and path.is_file():
            yield path


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as the official ones are: RGB, shorter side 72 (antialiased, by Pillow).

    Raises UserError for a file that is missing, no whole image, or of a size that cannot be worked with.
    """
    from PIL import Image

    from decathlon.data.decode import UnreadableError, decode  # loads decoders

    try:
        data = path.read_bytes()
        _check_size(data, path)
        image = decode(data)
    except (OSError, UnreadableError) as problem:
        told = problem.strerror if isinstance(problem, OSError) else problem
        raise UserError(f"Expected an image file, found none that can be read: {path} ({told}).") from None
    height, width = image.shape[:2]
    if min(height, width) == SHORTER_SIDE:
        return image
    scale = SHORTER_SIDE / min(height, width)
    sides = (max(SHORTER_SIDE, round(width * scale)), max(SHORTER_SIDE, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR))


def _check_size(data: bytes, path: Path) -> None:
    """Refuse by what the header says, before memory is taken. A header that is unreadable is for the decoder to tell."""
    import io
    import warnings

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


def preprocess(
    image: UInt8[np.ndarray, "h w 3"], spec: DomainSpec, fit: Fit, size: int, device: torch.device | None = None
) -> Float[Tensor, "1 3 size size"]:
    """The view of evaluation, by the same arithmetic as `DomainImages.evaluation`: middle square or whole, normalised."""
    device = device or torch.device("cpu")
    return normalise(square(image, fit, size, device), spec)


def square(
    image: UInt8[np.ndarray, "h w 3"], fit: Fit, size: int, device: torch.device
) -> Float[Tensor, "1 size size 3"]:
    """What is seen of an image in evaluation, size x size, before it is normalised."""
    heights, widths = np.array([image.shape[0]]), np.array([image.shape[1]])
    if fit == "squash" and device.type == "cpu":
        return resize_whole(np.ascontiguousarray(image).reshape(-1), np.array([0]), heights, widths, size).float()
    boxes = centre_boxes(heights, widths, fit)
    if fit == "crop" and min(image.shape[:2]) == size:
        boxes = np.rint(boxes)  # whole pixels, as in training
    planes = resample(torch.from_numpy(image.copy())[None].to(device), heights, widths, boxes, size)
    return planes.permute(0, 2, 3, 1)


@contextmanager
def _patient_progress(title: str, total: int) -> Iterator[Advance]:
    """A progress bar that shows only once the work has taken longer than two seconds."""
    begun, count = monotonic(), 0
    shown: Advance | None = None
    with ExitStack() as stack:

        def advance(done: int = 1, *, note: str = "") -> None:
            nonlocal count, shown
            count += done
            if shown is not None:
                shown(done, note=note)
            elif monotonic() - begun > PATIENCE:
                shown = stack.enter_context(progress(title, total, start=count))

        yield advance
