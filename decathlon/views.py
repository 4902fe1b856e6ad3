"""From stored pixels to what a network sees: boxes cut out by the batch, mirrored, resized and normalised on the device.

A *view* of an image is a box of source pixels that becomes a square. Where boxes are whole pixels at scale one they are
copied; where they are whole images on the CPU, torch resizes the bytes, which takes a fifth of the time; else two batched
matrix products resample them, by the same filter, the triangle that Pillow uses for antialiased bilinear resizing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from decathlon.specs import DomainSpec, Fit

Boxes = Float64[np.ndarray, "batch 4"]  # top, left, height, width, in source pixels; may reach over the edge


@dataclass(frozen=True)
class Augmentation:
    """Random changes in training; all off by default. Mirroring is the spec's to allow."""

    mirror: bool = True
    crop: bool = True  # False: the centre crop
    zoom: float = 1.0  # boxes change by a random factor (of their side) from here ...
    zoom_out: float = 1.0  # ... to here; beyond 1 they reach over the edges, whose pixels are repeated
    shift: float = 0.0  # boxes reach over the edge by up to this fraction of their side
    contrast: float = 0.0  # contrast changes by up to this fraction
    brightness: float = 0.0  # brightness changes by up to this many standard deviations

    @property
    def unscaled(self) -> bool:
        """Whether boxes keep their size and stay inside the image."""
        return self.zoom == self.zoom_out == 1 and self.shift == 0


CENTRE = Augmentation(mirror=False, crop=False)


def centre_boxes(heights: np.ndarray, widths: np.ndarray, fit: Fit) -> Boxes:
    """The boxes of evaluation: the middle square ("crop") or the whole image ("squash")."""
    return place_boxes(heights, widths, fit, np.full((len(heights), 2), 0.5))


def place_boxes(
    heights: np.ndarray,
    widths: np.ndarray,
    fit: Fit,
    where: Float64[np.ndarray, "batch 2"],
    scale: np.ndarray | float = 1.0,
    over: float = 0.0,
) -> Boxes:
    """Boxes at the place `where` (0: top or left, 1: bottom or right), scaled by `scale`, reaching `over` the edge."""
    size = np.stack([heights, widths], axis=1).astype(np.float64)
    box = (size if fit == "squash" else np.repeat(size.min(axis=1, keepdims=True), 2, axis=1)) * np.reshape(
        scale, (-1, 1)
    )
    reach = over * box
    start = where * (size - box + 2 * reach) - reach
    return np.concatenate([start, box], axis=1)


def random_boxes(
    heights: np.ndarray, widths: np.ndarray, fit: Fit, augmentation: Augmentation, rng: np.random.Generator
) -> Boxes:
    """The boxes of training."""
    if not augmentation.crop:
        return centre_boxes(heights, widths, fit)
    scale = rng.uniform(augmentation.zoom, augmentation.zoom_out, len(heights))
    return place_boxes(heights, widths, fit, rng.random((len(heights), 2)), scale, augmentation.shift)


def _image(pixels: UInt8[np.ndarray, " bytes"], start: int, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """One image of the store's bytes: (height, width, 3), a view."""
    return pixels[start : start + height * width * 3].reshape(height, width, 3)


def copy_windows(
    pixels: UInt8[np.ndarray, " bytes"],
    starts: Int[np.ndarray, " batch"],
    heights: np.ndarray,
    widths: np.ndarray,
    boxes: Boxes,
    size: int,
) -> UInt8[Tensor, "batch size size 3"]:
    """Copy one size x size window of each image out of the store's bytes; boxes are rounded to whole pixels."""
    batch = np.empty((len(starts), size, size, 3), np.uint8)
    corners = np.rint(boxes[:, :2]).astype(np.int64).T
    places = (values.tolist() for values in (starts, heights, widths, *corners))
    for row, start, height, width, top, left in zip(batch, *places, strict=True):
        row[:] = _image(pixels, start, height, width)[top : top + size, left : left + size]
    return torch.from_numpy(batch)


def stack_images(
    pixels: UInt8[np.ndarray, " bytes"], starts: Int[np.ndarray, " batch"], heights: np.ndarray, widths: np.ndarray
) -> UInt8[Tensor, "batch h w 3"]:
    """Copy whole images of any sizes into the upper left corners of one batch as large as the largest."""
    batch = np.zeros((len(starts), heights.max(), widths.max(), 3), np.uint8)
    places = (values.tolist() for values in (starts, heights, widths))
    for row, start, height, width in zip(batch, *places, strict=True):
        row[:height, :width] = _image(pixels, start, height, width)
    return torch.from_numpy(batch)


def resize_whole(
    pixels: UInt8[np.ndarray, " bytes"],
    starts: Int[np.ndarray, " batch"],
    heights: np.ndarray,
    widths: np.ndarray,
    size: int,
) -> UInt8[Tensor, "batch size size 3"]:
    """Whole images made square on the CPU: bilinear and antialiased, rounded to whole values, as Pillow does."""
    batch = torch.empty((len(starts), size, size, 3), dtype=torch.uint8)
    kinds, kind_of = np.unique(np.stack([heights, widths]), axis=1, return_inverse=True)
    for kind in range(kinds.shape[1]):  # images of one size together
        rows = np.flatnonzero(kind_of.reshape(-1) == kind)
        images = stack_images(pixels, starts[rows], heights[rows], widths[rows])
        squares = F.interpolate(images.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)
        batch[torch.from_numpy(rows)] = squares.permute(0, 2, 3, 1)
    return batch


def resample(
    images: UInt8[Tensor, "batch h w 3"],
    heights: np.ndarray,
    widths: np.ndarray,
    boxes: Boxes,
    size: int,
    mirrored: np.ndarray | None = None,
) -> Float[Tensor, "batch 3 size size"]:
    """Resize every box to size x size with the triangle filter, antialiased; `mirrored` boxes are turned left to right."""
    batch, height, width, _ = images.shape
    rows = filter_weights(boxes[:, 0], boxes[:, 2], heights, size, height)
    pixels = rows.to(images.device) @ images.view(batch, height, width * 3).float()  # (batch, size, width * 3)
    columns = filter_weights(boxes[:, 1], boxes[:, 3], widths, size, width)
    if mirrored is not None:
        turned = torch.from_numpy(mirrored)
        columns[turned] = columns[turned].flip(1)
    sideways = pixels.view(batch, size, width, 3).transpose(1, 2).reshape(batch, width, size * 3)
    across = columns.to(images.device) @ sideways  # (batch, a row's pixels, a column's pixels * 3)
    return across.view(batch, size, size, 3).permute(0, 3, 2, 1)


def filter_weights(
    start: np.ndarray, length: np.ndarray, limit: np.ndarray, size: int, columns: int
) -> Float[Tensor, "batch size columns"]:
    """The share of each source pixel in each of `size` output pixels along one axis.

    Output pixel i lies at `start` + (i + 0.5) `length` / `size` (clamped into the image of `limit` pixels); the
    triangle is as wide as an output pixel, at least one source pixel, and its weights sum to one.
    """
    unlike, which = np.unique(np.stack([start, length, limit]), axis=1, return_inverse=True)
    start, length, limit = unlike  # most batches hold images of one size, whose weights are made once
    step = (length / size)[:, None]
    centres = np.clip(start[:, None] + (np.arange(size) + 0.5) * step - 0.5, -0.5, limit[:, None] - 0.5)
    slope = torch.from_numpy((1 / np.maximum(step, 1.0)).astype(np.float32))[:, :, None]
    places = torch.arange(columns, dtype=torch.float32)
    weights = places.sub(torch.from_numpy(centres.astype(np.float32))[:, :, None])
    weights = weights.abs_().mul_(-slope).add_(1).clamp_(min=0)
    weights.mul_(places < torch.from_numpy(limit)[:, None, None])
    weights.div_(weights.sum(2, keepdim=True))
    return weights[torch.from_numpy(which.reshape(-1))]


def mirror(images: UInt8[Tensor, "batch h w 3"], mirrored: np.ndarray) -> UInt8[Tensor, "batch h w 3"]:
    """The images, the chosen ones turned left to right."""
    places = np.flatnonzero(mirrored)
    sources = np.arange(len(images))
    sources[places] = len(images) + np.arange(len(places))
    chosen = images.index_select(0, torch.from_numpy(places).to(images.device))
    turned = chosen.permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1)  # the layout for which torch has a fast flip
    # rows are gathered at the speed of memory, but scattered byte by byte
    return torch.cat([images, turned]).index_select(0, torch.from_numpy(sources).to(images.device))


def normalise(pixels: Shaped[Tensor, "batch size size 3"], spec: DomainSpec) -> Float[Tensor, "batch 3 size size"]:
    """Pixels of 0 to 255 to zero mean and unit variance by the domain's statistics; the result is channels-last."""
    batch, height, width, _ = pixels.shape
    mean, std = (_colour(values, pixels.device).repeat(width) for values in (spec.mean, spec.std))
    rows = pixels.reshape(batch * height, width * 3)  # long rows: arithmetic over three colours at a time is slow
    return rows.to(torch.float32, copy=True).sub_(mean).div_(std).view(batch, height, width, 3).permute(0, 3, 1, 2)


def draw_colours(count: int, augmentation: Augmentation, rng: np.random.Generator) -> Float64[np.ndarray, "2 count"]:
    """Random contrast (a factor) and brightness (a shift of the normalised values) for each image."""
    contrast, brightness = rng.uniform(-1, 1, (2, count))
    return np.stack([1 + augmentation.contrast * contrast, augmentation.brightness * brightness])


def change_colours(
    images: Float[Tensor, "batch 3 size size"], colours: Float64[np.ndarray, "2 batch"]
) -> Float[Tensor, "batch 3 size size"]:
    """Multiply and shift each normalised image, in place."""
    factor, shift = (torch.from_numpy(values[:, None, None, None]).to(images) for values in colours)
    return images.mul_(factor).add_(shift)


def _colour(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device) * 255
