"""Answers to single image files: found, read, made as large as official images, and shown to a run in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from decathlon.specs import DomainSpec, Fit
from decathlon.views import centre_boxes, normalise, resample, resize_whole
from mtan_core.images import find_images, read_pixels
from mtan_core.network import AttentionNetwork
from mtan_core.progress import late_progress

if TYPE_CHECKING:
    from decathlon.runs import Run

SHORTER_SIDE = 72  # of the official images, in pixels
BATCH = 32  # images per forward pass


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
    with late_progress("predicting", len(files)) as advance:
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


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as the official ones are: RGB, shorter side 72 (antialiased, by Pillow).

    Raises UserError for a file that is missing, no whole image, or of a size that cannot be worked with.
    """
    from PIL import Image

    image = read_pixels(path)
    height, width = image.shape[:2]
    if min(height, width) == SHORTER_SIDE:
        return image
    scale = SHORTER_SIDE / min(height, width)
    sides = (max(SHORTER_SIDE, round(width * scale)), max(SHORTER_SIDE, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR))


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
