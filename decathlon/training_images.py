"""What a domain learns from: augmented batches of its training split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from decathlon.batches import DomainImages, Draw
from decathlon.config import RunConfig
from decathlon.data.store import Store
from decathlon.views import Augmentation
from mtan_core.errors import UserError
from mtan_core.parallel import ALONE, Group
from mtan_core.sampling import keyed_generator
from mtan_core.step import Batch


@dataclass(frozen=True)
class TrainingImages:
    """What a domain learns from: its training split, under train+val its validation split too."""

    parts: tuple[DomainImages, ...]
    augmentation: Augmentation
    seed: int
    mixup: float

    def __len__(self) -> int:
        return sum(len(part.split) for part in self.parts)

    def batch(self, places: np.ndarray, drawn: int, group: Group = ALONE) -> Batch:
        """This process's part of the images at these places.

        The number of the batch in its stream determines all randomness, and it is drawn for the whole batch, so that each
        image is the same whoever makes it.
        """
        rng = keyed_generator(self.seed, "augment", self.parts[0].spec.name, drawn)
        draws, start = [], 0
        for part in self.parts:
            own = places[(places >= start) & (places < start + len(part.split))] - start
            draws.append(part.draw(own, self.augmentation, rng) if len(own) else None)
            start += len(part.split)
        rows = np.arange(len(places))[group.part(len(places))]
        if not self.mixup:
            return Batch(*self._made(draws, rows))
        share = float(rng.beta(self.mixup, self.mixup))
        partners = rng.permutation(len(places))[rows]
        return self._mixed(draws, rows, partners, max(share, 1 - share))

    def _mixed(self, draws: Sequence[Draw | None], rows: np.ndarray, partners: np.ndarray, share: float) -> Batch:
        """Mixup: the greater `share` is that of `rows`, whose labels are the batch's first."""
        needed, where = np.unique(np.concatenate([rows, partners]), return_inverse=True)
        images, labels = self._made(draws, needed)
        first, other = (torch.from_numpy(part).to(labels.device) for part in np.split(where.reshape(-1), 2))
        own = images if len(needed) == len(rows) else images[first]
        return Batch(own.lerp(images[other], 1 - share), labels[first], labels[other], share)

    def _made(self, draws: Sequence[Draw | None], rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of some rows of the batch, in ascending order."""
        images, labels, start = [], [], 0
        for part, draw in zip(self.parts, draws, strict=True):
            if draw is None:
                continue
            wanted = rows[(rows >= start) & (rows < start + len(draw.places))] - start
            start += len(draw.places)
            if len(wanted):
                images.append(part.training(draw[wanted]))
                labels.append(part.split.labels[draw.places[wanted]])  # type: ignore[index]
        return torch.cat(images), torch.from_numpy(np.concatenate(labels)).to(images[0].device)


def training_images(config: RunConfig, store: Store, domain: str, device: torch.device) -> TrainingImages:
    """A domain's images with the run's augmentation. Raises UserError for an empty split."""
    wanted = ["train", "val"] if config.protocol == "train+val" else ["train"]
    splits = [split for split in wanted if split == "train" or split in store.splits(domain)]
    parts = tuple(stored_images(config, store, domain, split, device) for split in splits)
    if not sum(len(part.split) for part in parts):
        raise UserError(f"{domain}: expected training images, found none in the store.")
    for part in parts:
        if part.split.labels is None:
            raise UserError(f"{domain}: expected labelled training images, found a split without labels in the store.")
    options = config.augment
    augmentation = Augmentation(
        mirror=options.mirror, zoom=options.zoom, zoom_out=options.zoom_out, shift=options.shift,
        contrast=options.contrast, brightness=options.brightness,
    )  # fmt: skip
    if domain in options.centre:
        augmentation = replace(augmentation, crop=False)
    return TrainingImages(parts, augmentation, config.seed, config.mixup)


def stored_images(config: RunConfig, store: Store, domain: str, split: str, device: torch.device) -> DomainImages:
    """A stored split as the run's configuration wants it."""
    spec = store.specs[domain]
    return DomainImages(store.split(domain, split), config.fit.get(domain, spec.fit), config.image_size, device, spec)
