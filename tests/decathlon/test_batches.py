"""Training batches: what is pooled, mixed and drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from decathlon.batches import DomainImages
from decathlon.training_images import TrainingImages
from decathlon.views import Augmentation
from tests.decathlon.images import random_images, store_split

CPU = torch.device("cpu")
PLAIN = Augmentation(mirror=False, crop=False)
RANDOM = Augmentation(zoom=0.7, shift=0.1, contrast=0.2, brightness=0.2)


def training_images(
    folder: Path, augmentation: Augmentation = PLAIN, mixup: float = 0.0, seed: int = 0, val: int = 0
) -> TrainingImages:
    """20 training images (and `val` validation images) of 7 classes; the image's value is its place."""

    def part(name: str, first: int, count: int) -> DomainImages:
        images = [np.full((72, 72), first + place, np.uint8)[..., None].repeat(3, 2) for place in range(count)]
        split = store_split(folder, images, split=name)
        return DomainImages(split, "crop", 24, CPU, split.spec)

    parts = [part("train", 0, 20)] + ([part("val", 100, val)] if val else [])
    return TrainingImages(tuple(parts), augmentation, seed, mixup)


def values(source: TrainingImages, images: torch.Tensor) -> list[int]:
    """The value of each even image."""
    spec = source.parts[0].spec
    return [round(float(row) * 255 * spec.std[0] + 255 * spec.mean[0]) for row in images[:, 0].mean((1, 2))]


def test_labels_follow_images(tmp_path: Path) -> None:
    source = training_images(tmp_path)
    places = np.random.default_rng(0).permutation(20)
    batch = source.batch(places, 0)
    assert values(source, batch.images) == places.tolist()
    assert batch.labels.tolist() == (places % 7).tolist()
    assert batch.labels.dtype == torch.int64
    assert batch.other_labels is None and batch.share == 1.0


def test_train_and_val_are_one_pool(tmp_path: Path) -> None:
    source = training_images(tmp_path, val=9)
    assert len(source) == 29
    batch = source.batch(np.array([28, 0, 20, 19, 24]), 3)
    seen = dict(zip(values(source, batch.images), batch.labels.tolist(), strict=True))
    assert seen == {0: 0, 19: 5, 100: 0, 104: 4, 108: 1}
    only_val = source.batch(np.array([21, 22]), 3)
    assert sorted(values(source, only_val.images)) == [101, 102]


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_batch_is_a_function_of_seed_and_number(tmp_path: Path, mixup: float) -> None:
    images = random_images([(72, 72 + place % 3) for place in range(12)])
    split = store_split(tmp_path, images)
    source = DomainImages(split, "crop", 24, CPU, split.spec)

    def batch(seed: int, number: int) -> torch.Tensor:
        return TrainingImages((source,), RANDOM, seed, mixup).batch(np.arange(12), number).images

    first = batch(1, 5)
    batch(1, 6)  # what is drawn in between does not matter
    assert torch.equal(batch(1, 5), first)
    assert not torch.equal(batch(1, 6), first)
    assert not torch.equal(batch(2, 5), first)


def test_domains_are_augmented_independently(tmp_path: Path) -> None:
    images = random_images([(72, 100)] * 4)
    seen = []
    for domain in ("svhn", "gtsrb"):
        split = store_split(tmp_path / domain, images, domain)
        part = DomainImages(split, "crop", 72, CPU, split.spec)
        batch = TrainingImages((part,), Augmentation(), 0, 0.0).batch(np.arange(4), 0)
        seen.append(
            batch.images * torch.tensor(split.spec.std).view(3, 1, 1) + torch.tensor(split.spec.mean).view(3, 1, 1)
        )
    assert (seen[0] - seen[1]).abs().max() > 0.1


def test_mixup_blends_images_and_labels_alike(tmp_path: Path) -> None:
    plain, mixed = training_images(tmp_path), training_images(tmp_path, mixup=0.4)
    places = np.arange(20)
    straight = plain.batch(places, 2)
    batch = mixed.batch(places, 2)
    assert 0.5 <= batch.share < 1
    assert torch.equal(batch.labels, straight.labels)
    assert batch.other_labels is not None
    partner = {value: row for row, value in enumerate(values(plain, straight.images))}
    for row in range(20):
        rest = (batch.images[row] - batch.share * straight.images[row]) / (1 - batch.share)
        (value,) = values(plain, rest[None])
        other = partner[value]
        assert_close(rest, straight.images[other], rtol=0, atol=1e-3)
        assert batch.other_labels[row] == straight.labels[other]


def test_mixup_shares_follow_the_beta_distribution(tmp_path: Path) -> None:
    """The larger of x and 1 - x for x of Beta(1, 1) is even on [0.5, 1]: mean 0.75."""
    source = training_images(tmp_path, mixup=1.0)
    shares = [source.batch(np.array([0, 1]), number).share for number in range(120)]
    assert np.mean(shares) == pytest.approx(0.75, abs=0.04)
    assert min(shares) < 0.55 and max(shares) > 0.95
