"""dtd: textures named by their process, in any two colours, at several scales and angles."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from decathlon.miniature.drawing import Floats, contrasting, hsv, photograph, smooth_noise
from decathlon.miniature.sample import SIDE, Kind, Pixels, Rng, Sample

OVER = 2  # pattern samples per output pixel

Pattern = Callable[[Floats, Floats, Rng], Floats]
"""From coordinates in periods, (h, w) each, to ink in [0, 1]."""


def banded(u: Floats, v: Floats, rng: Rng) -> Floats:
    return (u % 1 < rng.uniform(0.35, 0.65)).astype(float)


def blotchy(u: Floats, v: Floats, rng: Rng) -> Floats:
    return (_noise(u, rng, 7) > rng.uniform(-0.2, 0.2)).astype(float)


def bubbly(u: Floats, v: Floats, rng: Rng) -> Floats:
    """Balls of several sizes anywhere, shaded from the middle to the rim."""
    ink = np.zeros_like(u)
    for _ in range(26):
        x, y = rng.uniform(u.min(), u.max()), rng.uniform(v.min(), v.max())
        far = np.hypot(u - x, v - y) / rng.uniform(0.35, 0.9)
        ink = np.where(far < 1, 1 - 0.9 * far**2, ink)
    return ink


def chequered(u: Floats, v: Floats, rng: Rng) -> Floats:
    return ((u % 1 < 0.5) != (v % 1 < 0.5)).astype(float)


def cracked(u: Floats, v: Floats, rng: Rng) -> Floats:
    """Thin borders between the cells of random points (Voronoi)."""
    points = rng.uniform((u.min(), v.min()), (u.max(), v.max()), (34, 2)).astype(np.float32)
    far = (u[..., None].astype(np.float32) - points[:, 0]) ** 2 + (v[..., None].astype(np.float32) - points[:, 1]) ** 2
    nearest = np.sqrt(np.partition(far, 1, axis=2)[..., :2])
    return (np.abs(nearest[..., 1] - nearest[..., 0]) < 0.16).astype(float)


def crosshatched(u: Floats, v: Floats, rng: Rng) -> Floats:
    """Fine lines in two directions that meet at a slant."""
    w = 0.5 * u + 0.87 * v
    return np.maximum((2.2 * u % 1 < 0.3).astype(float), (2.2 * w % 1 < 0.3).astype(float))


def dotted(u: Floats, v: Floats, rng: Rng) -> Floats:
    shifted = u + 0.5 * (np.floor(v) % 2)
    return (np.hypot(shifted % 1 - 0.5, v % 1 - 0.5) < rng.uniform(0.24, 0.34)).astype(float)


def gridded(u: Floats, v: Floats, rng: Rng) -> Floats:
    thin = rng.uniform(0.14, 0.22)
    return np.maximum(u % 1 < thin, v % 1 < thin).astype(float)


def marbled(u: Floats, v: Floats, rng: Rng) -> Floats:
    """Veins: stripes strongly bent by noise."""
    return 0.5 + 0.5 * np.sin(2.2 * u + 2.6 * _noise(u, rng, 4))


def speckled(u: Floats, v: Floats, rng: Rng) -> Floats:
    return (_noise(u, rng, 34) > 0.5).astype(float)


def woven(u: Floats, v: Floats, rng: Rng) -> Floats:
    """Strips that pass over and under each other, shaded across."""
    over = (np.floor(u) + np.floor(v)) % 2 == 0
    across = np.where(over, u, v) % 1
    return 1 - (2 * across - 1) ** 2


def zigzagged(u: Floats, v: Floats, rng: Rng) -> Floats:
    bent = u + 1.2 * np.abs(v % 1.6 - 0.8)
    return (bent % 1 < 0.5).astype(float)


TEXTURES: dict[str, Pattern] = {
    pattern.__name__: pattern
    for pattern in (
        banded, blotchy, bubbly, chequered, cracked, crosshatched, dotted, gridded, marbled, speckled, woven, zigzagged,
    )
}  # fmt: skip


def _noise(like: Floats, rng: Rng, cells: int) -> Floats:
    """Smooth noise of the shape of `like`."""
    return smooth_noise(rng, (like.shape[1], like.shape[0]), cells)[..., 0]


def coordinates(rng: Rng, size: tuple[int, int], period: float) -> tuple[Floats, Floats]:
    """Turned, sheared and slightly warped coordinates (h, w) in units of the period (pixels)."""
    x, y = np.arange(size[0])[None, :] / period, np.arange(size[1])[:, None] / period
    angle, shear = rng.uniform(-0.5, 0.5), rng.uniform(-0.12, 0.12)
    u = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, 9)
    v = y * np.cos(angle) - x * np.sin(angle) + rng.uniform(0, 9)
    warp = rng.uniform(0, 0.12)
    return u + shear * v + warp * _noise(u, rng, 4), v + warp * _noise(u, rng, 4)


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    long = int(rng.integers(SIDE, 108))
    width, height = (long, SIDE) if rng.random() < 0.6 else (SIDE, long)
    size = (OVER * width, OVER * height)
    u, v = coordinates(rng, size, OVER * rng.uniform(12, 17))
    ink = TEXTURES[sample.name](u, v, rng)[..., None]
    paper = hsv(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.15, 1))
    colours = np.array([paper, contrasting(rng, paper, 85)], dtype=float)
    picture = colours[0] * (1 - ink) + colours[1] * ink + 8 * smooth_noise(rng, size, 6)
    small = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).reduce(OVER)
    return photograph(np.asarray(small, dtype=float), rng)


KIND = Kind("dtd", tuple(TEXTURES), paint)
