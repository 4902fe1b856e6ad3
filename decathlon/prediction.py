"""Answers to single image files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from decathlon.specs import DomainSpec, Fit
from decathlon.views import centre_boxes, normalise, resample
from mtan_core.errors import UserError
from mtan_core.network import AttentionNetwork

SHORTER_SIDE = 72  # of the official images, in pixels


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, likeliest first."""

    path: Path
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict_file(
    network: AttentionNetwork, path: Path, spec: DomainSpec, fit: Fit, size: int, top: int = 5
) -> Prediction:
    """Predict one file, in evaluation mode. Raises UserError for a file that is missing or no whole image."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        images = preprocess(read_image(path), spec, fit, size).to(device, memory_format=torch.channels_last)
        probabilities = network(images, spec.name)[0].double().softmax(0).cpu()
    best = probabilities.topk(min(top, spec.classes))
    labels = tuple(spec.class_names[place] for place in best.indices.tolist())
    return Prediction(path, labels, tuple(best.values.tolist()))


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as the official ones are: RGB, shorter side 72 (antialiased, by Pillow)."""
    from PIL import Image

    from decathlon.data.decode import UnreadableError, decode  # loads decoders

    try:
        image = decode(path.read_bytes())
    except (OSError, UnreadableError) as problem:
        raise UserError(f"Expected an image file, found none that can be read: {path} ({problem}).") from None
    height, width = image.shape[:2]
    if min(height, width) == SHORTER_SIDE:
        return image
    scale = SHORTER_SIDE / min(height, width)
    sides = (max(SHORTER_SIDE, round(width * scale)), max(SHORTER_SIDE, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR))


def preprocess(
    image: UInt8[np.ndarray, "h w 3"], spec: DomainSpec, fit: Fit, size: int
) -> Float[Tensor, "1 3 size size"]:
    """The view of evaluation: middle square or whole image, resized and normalised."""
    heights, widths = np.array([image.shape[0]]), np.array([image.shape[1]])
    boxes = centre_boxes(heights, widths, fit)
    if fit == "crop" and min(image.shape[:2]) == size:
        boxes = np.rint(boxes)  # whole pixels, as in training
    planes = resample(torch.from_numpy(image.copy())[None], heights, widths, boxes, size)
    return normalise(planes.permute(0, 2, 3, 1), spec)
