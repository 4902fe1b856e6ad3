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
    CENTRE,
    Augmentation,
    Boxes,
    centre_boxes,
    change_colours,
    copy_windows,
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
class DomainImages:
    """The images of one domain's split, as the network wants them: (batch, 3, size, size), normalised, on `device`."""

    split: StoredSplit
    fit: Fit
    size: int
    device: torch.device
    spec: DomainSpec  # whose mean and std hold: a run keeps those of its training

    def training(self, places: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> Tensor:
        """Augmented images at these places of the split; all randomness comes from `rng`."""
        heights, widths = self.split.heights[places], self.split.widths[places]
        boxes = random_boxes(heights, widths, self.fit, augmentation, rng)
        mirrored = None
        if augmentation.mirror and self.spec.mirror:
            mirrored = rng.random(len(places)) < 0.5
        images = self._views(places, boxes, augmentation, mirrored)
        if augmentation.contrast or augmentation.brightness:
            images = change_colours(images, augmentation, rng)
        return images

    def evaluation(self, places: np.ndarray, view: View | None = None) -> Float[Tensor, "batch 3 size size"]:
        """The images without any randomness: the centre, or the given view of it."""
        heights, widths = self.split.heights[places], self.split.widths[places]
        if view is None:
            return self._views(places, centre_boxes(heights, widths, self.fit), CENTRE, None)
        boxes = place_boxes(heights, widths, self.fit, np.full((len(places), 2), view.place))
        return self._views(places, boxes, CENTRE, np.full(len(places), view.mirrored))

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
        self, places: np.ndarray, boxes: Boxes, augmentation: Augmentation, mirrored: np.ndarray | None
    ) -> Float[Tensor, "batch 3 size size"]:
        split = self.split
        stored = split.pixels, split.offsets[places], split.heights[places], split.widths[places]
        if augmentation.unscaled and self._whole_pixels:
            windows = copy_windows(*stored, boxes, self.size).to(self.device)
        elif augmentation.unscaled and self.fit == "squash" and self.device.type == "cpu":
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
