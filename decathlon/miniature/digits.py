"""svhn: real handwritten digits (scikit-learn's `load_digits`) on coloured house numbers between neighbouring digits."""

from functools import cache

import numpy as np
from PIL import Image

from decathlon.miniature.drawing import Floats, Pose, backdrop, hsv, photograph
from decathlon.miniature.sample import SIDE, Kind, Pixels, Sample

NAMES = tuple("0123456789")
_SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}  # of each digit's source images


@cache
def sources(seed: int, split: str) -> dict[str, Floats]:
    """The source images (n, 8, 8) in [0, 1] of each digit for a split; no image serves two splits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    first, last = _SHARES[split]
    chosen = {}
    for name in NAMES:
        own = digits.images[digits.target == int(name)] / 16.0
        own = own[np.random.default_rng([seed, 8, int(name)]).permutation(len(own))]
        chosen[name] = own[round(first * len(own)) : round(last * len(own))]
    return chosen


def lay(source: Floats, pose: Pose) -> Floats:
    """A digit's ink (SIDE, SIDE) in [0, 1], its 8x8 source enlarged, sharpened and laid under `pose`."""
    large = Image.fromarray((255 * source).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    cos, sin, step = np.cos(pose.angle), np.sin(pose.angle), 32 / pose.size
    a, b = step * cos / pose.stretch, step * sin / pose.stretch
    d, e = -step * sin, step * cos
    matrix = (a, b, 32 - a * pose.x - b * pose.y, d, e, 32 - d * pose.x - e * pose.y)
    laid = large.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.clip((np.asarray(laid, dtype=float) / 255 - 0.35) * 4, 0, 1)


def _any(sample: Sample) -> Floats:
    """A source of any digit of the split, for the neighbours."""
    own = sources(sample.seed, sample.split)[str(sample.rng.integers(10))]
    return own[sample.rng.integers(len(own))]


def _numbers(sample: Sample) -> Floats:
    """Ink of the number plate: the digit in the middle, neighbours left and right that the image cuts."""
    rng = sample.rng
    own = sources(sample.seed, sample.split)[sample.name]
    size, turn = rng.uniform(23, 30), rng.uniform(-0.15, 0.15)
    x, y = SIDE / 2 + rng.uniform(-5, 5, 2)
    middle = Pose(x, y, size, turn, rng.uniform(0.8, 1.0))
    ink = lay(own[sample.index % len(own)], middle)
    for side in (-1, 1):
        if rng.random() < 0.7:
            x = middle.x + side * size * middle.stretch * rng.uniform(1.35, 1.6)
            ink = np.maximum(ink, lay(_any(sample), Pose(x, middle.y + rng.uniform(-3, 3), size, turn, middle.stretch)))
    return ink[..., None]


def paint(sample: Sample) -> Pixels:
    """Mostly light numbers on a dark ground, sometimes the other way round."""
    rng = sample.rng
    dark = hsv(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.15, 0.55))
    light = hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.85, 1))
    plate, digit = (dark, light) if rng.random() < 0.96 else (light, dark)
    ground = backdrop(rng, (SIDE, SIDE), plate, 15, 3).array()
    ink = _numbers(sample)
    return photograph(ground * (1 - ink) + ink * np.array(digit), rng)


KIND = Kind("svhn", NAMES, paint, train=60)
