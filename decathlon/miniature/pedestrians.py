"""daimlerpedcls: grey upright figures, and street clutter of the same height without any."""

import numpy as np

from decathlon.miniature.drawing import Brush, Canvas, Colour, Pose, backdrop, box, oval, photograph
from decathlon.miniature.sample import SIDE, Kind, Pixels, Rng, Sample

SIZE = (SIDE, 2 * SIDE)


def grey(rng: Rng, low: float = 20, high: float = 235) -> Colour:
    level = int(rng.uniform(low, high))
    return level, level, level


def figure(brush: Brush, rng: Rng, dark: bool) -> None:
    """A walking or standing person, 2 high: clothes darker or lighter than what is behind."""
    tone = (10, 90) if dark else (165, 250)
    coat, trousers, skin = grey(rng, *tone), grey(rng, *tone), grey(rng, *tone)
    stride, swing, wide = rng.uniform(0.0, 0.32), rng.uniform(0.0, 0.3), rng.uniform(0.2, 0.28)
    for side in (-1, 1):
        knee = (side * (0.1 + 0.5 * stride), 0.5)
        brush.stroke([(0.1 * side, 0.05), knee, (side * (0.1 + stride), 0.97)], 0.17, trousers)
        elbow = (side * (wide + 0.08 + 0.5 * swing), -0.2)
        brush.stroke([(wide * side, -0.52), elbow, (side * (wide + swing), 0.08)], 0.11, coat)
    brush.fill([(-wide, -0.6), (wide, -0.6), (wide * 0.85, 0.12), (-wide * 0.85, 0.12)], coat)
    brush.fill(box(-0.06, -0.7, 0.06, -0.58), skin)
    brush.fill(oval(0, -0.82, 0.125, 0.16), skin)


def tree(brush: Brush, rng: Rng) -> None:
    tone = grey(rng)
    brush.fill(box(-0.08, -0.3, 0.08, 1), tone)
    for _ in range(5):
        x, y = rng.uniform((-0.3, -0.9), (0.3, -0.2))
        brush.fill(oval(x, y, rng.uniform(0.15, 0.4)), tone)


def post(brush: Brush, rng: Rng) -> None:
    """A lamp or sign on a post."""
    tone, wide = grey(rng), rng.uniform(0.03, 0.1)
    brush.fill(box(-wide, -0.8, wide, 1), tone)
    brush.fill(oval(0, -0.8, rng.uniform(0.1, 0.35), rng.uniform(0.08, 0.3)), tone)


def wall(brush: Brush, rng: Rng) -> None:
    """A door or a window front."""
    wide = rng.uniform(0.15, 0.5)
    brush.fill(box(-wide, -0.9, wide, 1), grey(rng))
    for y in np.arange(-0.8, 0.8, rng.uniform(0.3, 0.8)):
        brush.fill(box(-wide * 0.7, y, wide * 0.7, y + 0.22), grey(rng))


def bins(brush: Brush, rng: Rng) -> None:
    """Boxes and barrels piled up."""
    for _ in range(4):
        x, y = rng.uniform((-0.3, -0.7), (0.3, 0.7))
        half = rng.uniform(0.1, 0.35, 2)
        brush.fill(box(x - half[0], y - half[1], x + half[0], y + half[1]), grey(rng))


CLUTTER = (tree, post, wall, bins)


def street(rng: Rng) -> Canvas:
    """Wall, pavement and blurred things behind."""
    level = grey(rng, 60, 200)
    canvas = backdrop(rng, SIZE, level, 25, 4)
    canvas.brush().fill(box(0, rng.uniform(85, 135), *SIZE), grey(rng, level[0] - 35, level[0] + 35))
    for _ in range(int(rng.integers(1, 4))):
        x, half = rng.uniform(0, SIDE), rng.uniform(1, 9)
        tone = grey(rng, level[0] - 40, level[0] + 40)
        canvas.brush().fill(box(x - half, rng.uniform(-20, 60), x + half, rng.uniform(90, 140)), tone)
    return canvas


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    canvas = street(rng)
    near = Pose(SIDE / 2 + rng.uniform(-9, 9), SIDE + rng.uniform(-8, 8), rng.uniform(46, 58), rng.uniform(-0.06, 0.06))
    side = Pose(rng.uniform(0, SIDE), SIDE + rng.uniform(-20, 20), rng.uniform(30, 60))
    CLUTTER[rng.integers(len(CLUTTER))](canvas.brush(side), rng)
    if sample.name == "ped":
        behind = float(canvas.array()[24:120, 12:60].mean())
        figure(canvas.brush(near), rng, dark=behind > rng.uniform(100, 150))
    else:
        CLUTTER[rng.integers(len(CLUTTER))](canvas.brush(near), rng)
    pixels = photograph(canvas.array(), rng, grey=True)
    return np.repeat(pixels[..., :1], 3, axis=2)


KIND = Kind("daimlerpedcls", ("nonped", "ped"), paint, train=60, val=40, test=60)
