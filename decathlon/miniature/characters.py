"""omniglot: characters of invented alphabets, drawn stroke by stroke in white on black by many hands."""

from functools import cache

import numpy as np
from PIL import Image

from decathlon.miniature.drawing import SCALE, Canvas, Floats, Pose, random_pose
from decathlon.miniature.sample import SIDE, Kind, Pixels, Rng, Sample

ALPHABETS = {"Arvic": 5, "Belmari": 5, "Tsolu": 4}  # name -> characters
NAMES = tuple(f"{alphabet}/character{i:02d}" for alphabet, count in ALPHABETS.items() for i in range(1, count + 1))
Strokes = tuple[Floats, ...]  # each (n, 2) control points in [-1, 1]
_LEAST = 0.41  # least distance between two characters; those with nothing in common have 1


def _stroke(rng: Rng) -> Floats:
    """A straight line, a bend, an arc or a ring between points of a 3x3 grid."""
    grid = np.array([(x, y) for x in (-0.8, 0, 0.8) for y in (-0.8, 0, 0.8)])
    kind = rng.integers(4)
    if kind == 3:
        t = np.linspace(0, 2 * np.pi, 22) + rng.uniform(0, 6)
        return rng.choice(grid) * 0.6 + rng.uniform(0.3, 0.5) * np.stack([np.cos(t), np.sin(t)], axis=1)
    points = rng.choice(grid, 2 + int(kind > 0), replace=False)
    if kind < 2:
        return points
    t = np.linspace(0, 1, 16)[:, None]
    return (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] * 1.3 + t**2 * points[2]


def _raster(strokes: Strokes) -> Floats:
    """A blurred, centred 12x12 image of unit norm, to compare characters by."""
    canvas = Canvas(Image.new("L", (36 * SCALE, 36 * SCALE)).convert("RGB"))
    points = np.concatenate(strokes)
    middle = (points.min(0) + points.max(0)) / 2
    for stroke in strokes:
        canvas.brush(Pose(18, 18, 12)).stroke(stroke - middle, 0.35, (255, 255, 255))
    small = np.asarray(canvas.image.convert("L").resize((12, 12), Image.Resampling.BOX), dtype=float)
    return small / np.linalg.norm(small)


@cache
def characters(seed: int) -> dict[str, Strokes]:
    """The characters of this seed: drawn at random, kept when unlike all those before."""
    rng = np.random.default_rng([seed, 7])
    kept: list[Strokes] = []
    rasters: list[Floats] = []
    while len(kept) < len(NAMES):
        strokes = tuple(_stroke(rng) for _ in range(int(rng.integers(2, 5))))
        raster = _raster(strokes)
        if all(1 - float((raster * other).sum()) > _LEAST for other in rasters):
            kept.append(strokes)
            rasters.append(raster)
    return dict(zip(NAMES, kept, strict=True))


def by_hand(stroke: Floats, rng: Rng) -> Floats:
    """A stroke as somebody writes it: begun elsewhere, led elsewhere, bent a little."""
    t = np.linspace(0, 1, len(stroke))[:, None]
    begun, led, bent = rng.normal(0, 0.05, (3, 2))
    return stroke + begun + led * t + bent * np.sin(np.pi * t)


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    canvas = Canvas(Image.new("RGB", (SIDE * SCALE, SIDE * SCALE)))
    pose = random_pose(rng, (SIDE, SIDE), (15, 26), 13, 0.35)
    width = rng.uniform(0.09, 0.14)
    shear = np.array([[1, 0], [rng.uniform(-0.25, 0.25), 1]])
    for stroke in characters(sample.seed)[sample.name]:
        canvas.brush(pose).stroke(by_hand(stroke, rng) @ shear, width, (255, 255, 255))
    return canvas.array().astype(np.uint8)


KIND = Kind("omniglot", NAMES, paint)
