"""What a domain learns from: augmented batches of its training split."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from decathlon.batches import DomainImages
from decathlon.config import RunConfig
from decathlon.data.store import Store
from decathlon.views import Augmentation
from mtan_core.errors import UserError
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

    def batch(self, places: np.ndarray, drawn: int) -> Batch:
        """The images at these places; the number of the batch in its stream determines all randomness."""
        name = self.parts[0].spec.name
        rng = keyed_generator(self.seed, "augment", name, drawn)
        images, labels, start = [], [], 0
        for part in self.parts:
            own = places[(places >= start) & (places < start + len(part.split))] - start
            if len(own):
                images.append(part.training(own, self.augmentation, rng))
                labels.append(part.split.labels[own])  # type: ignore[index]
            start += len(part.split)
        return self._mix(torch.cat(images), torch.from_numpy(np.concatenate(labels)).to(images[0].device), rng)

    def _mix(self, images: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator) -> Batch:
        if not self.mixup:
            return Batch(images, labels)
        share = float(rng.beta(self.mixup, self.mixup))
        share = max(share, 1 - share)  # so that `labels` are those of the greater part
        order = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
        return Batch(images.lerp(images[order], 1 - share), labels, labels[order], share)


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
