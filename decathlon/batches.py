"""Batches of one domain and split, straight from the store's memory map."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decathlon.data.store import StoredSplit
from decathlon.specs import DomainSpec, Fit
from decathlon.views import (
    Augmentation,
    Boxes,
    centre_boxes,
    change_colours,
    copy_windows,
    draw_colours,
    mirror,
    normalise,
    place_boxes,
    random_boxes,
    resample,
    resize_whole,
    stack_images,
)


@dataclass(frozen=True)
class View:
    """One fixed way to look at an image: where a crop lies (0 to 1 along the longer side), and whether it is mirrored."""

    place: float = 0.5
    mirrored: bool = False


@dataclass(frozen=True)
class Draw:
    """Images of a split and how each is to be looked at: boxes, mirrored or not, factor and shift of the colours."""

    places: np.ndarray
    boxes: Boxes
    mirrored: np.ndarray | None
    colours: np.ndarray | None  # (2, images)
    unscaled: bool  # boxes are as large as what is made of them

    def __getitem__(self, rows: np.ndarray) -> "Draw":
        """Some of them."""
        mirrored = None if self.mirrored is None else self.mirrored[rows]
        colours = None if self.colours is None else self.colours[:, rows]
        return Draw(self.places[rows], self.boxes[rows], mirrored, colours, self.unscaled)


@dataclass(frozen=True)
class DomainImages:
    """The images of one domain's split, as the network wants them: (batch, 3, size, size), normalised, on `device`."""

    split: StoredSplit
    fit: Fit
    size: int
    device: torch.device
    spec: DomainSpec  # whose mean and std hold: a run keeps those of its training

    def draw(self, places: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> Draw:
        """How each image at these places of the split is to be looked at; all randomness comes from `rng`."""
        heights, widths = self.split.heights[places], self.split.widths[places]
        boxes = random_boxes(heights, widths, self.fit, augmentation, rng)
        mirrored = rng.random(len(places)) < 0.5 if augmentation.mirror and self.spec.mirror else None
        colours = None
        if augmentation.contrast or augmentation.brightness:
            colours = draw_colours(len(places), augmentation, rng)
        return Draw(places, boxes, mirrored, colours, augmentation.unscaled)

    def training(self, draw: Draw) -> Float[Tensor, "batch 3 size size"]:
        """Augmented images, as drawn."""
        images = self._views(draw.places, draw.boxes, draw.unscaled, draw.mirrored)
        return images if draw.colours is None else change_colours(images, draw.colours)

    def evaluation(self, places: np.ndarray, view: View | None = None) -> Float[Tensor, "batch 3 size size"]:
        """The images without any randomness: the centre, or the given view of it."""
        heights, widths = self.split.heights[places], self.split.widths[places]
        if view is None:
            return self._views(places, centre_boxes(heights, widths, self.fit), True, None)
        boxes = place_boxes(heights, widths, self.fit, np.full((len(places), 2), view.place))
        return self._views(places, boxes, True, np.full(len(places), view.mirrored))

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """The places of the whole split in order, in chunks."""
        places = np.arange(len(self.split))
        for start in range(0, len(places), size):
            yield places[start : start + size]

    @cached_property
    def _whole_pixels(self) -> bool:
        """Whether unscaled views are windows of whole pixels; asked of the split, so that no image depends on its batch."""
        heights, widths = self.split.heights, self.split.widths
        square = self.fit == "crop" or bool((heights == widths).all())
        return square and bool((np.minimum(heights, widths) == self.size).all())

    def _views(
        self, places: np.ndarray, boxes: Boxes, unscaled: bool, mirrored: np.ndarray | None
    ) -> Float[Tensor, "batch 3 size size"]:
        split = self.split
        stored = split.pixels, split.offsets[places], split.heights[places], split.widths[places]
        if unscaled and self._whole_pixels:
            windows = copy_windows(*stored, boxes, self.size).to(self.device)
        elif unscaled and self.fit == "squash" and self.device.type == "cpu":
            windows = resize_whole(*stored, self.size)
        else:
            images = stack_images(*stored).to(self.device)
            planes = resample(images, *stored[2:], boxes, self.size, mirrored)
            return normalise(planes.permute(0, 2, 3, 1), self.spec)
        return normalise(windows if mirrored is None else mirror(windows, mirrored), self.spec)


def views_of(images: DomainImages) -> list[View]:
    """The views that `submit --views` averages: mirrored where the domain allows, three crops where images are longer."""
    split = images.split
    longer = images.fit == "crop" and bool((split.heights != split.widths).any())
    places = (0.0, 0.5, 1.0) if longer else (0.5,)
    return [
        View(place, mirrored) for place in places for mirrored in ((False, True) if images.spec.mirror else (False,))
    ]
