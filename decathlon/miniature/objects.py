"""cifar100: simple everyday things, in any colour and place, on scenes of ground and wall or sky."""

from collections.abc import Callable

import numpy as np

from decathlon.miniature.drawing import (
    Brush,
    Canvas,
    Colour,
    backdrop,
    box,
    contrasting,
    hsv,
    oval,
    photograph,
    random_pose,
    scatter,
    shade,
)
from decathlon.miniature.sample import SIDE, Kind, Pixels, Rng, Sample


def apple(brush: Brush, main: Colour, other: Colour) -> None:
    brush.fill(oval(-0.32, 0.15, 0.55, 0.75), main)
    brush.fill(oval(0.32, 0.15, 0.55, 0.75), main)
    brush.stroke([(0, -0.45), (0.1, -0.95)], 0.14, shade(main, 0.35))
    brush.fill(oval(0.42, -0.72, 0.36, 0.15, -0.4), other)


def bottle(brush: Brush, main: Colour, other: Colour) -> None:
    left = [(-0.36, 1), (-0.36, -0.15), (-0.14, -0.5), (-0.14, -0.9)]
    brush.fill([*left, *((-x, y) for x, y in reversed(left))], main)
    brush.fill(box(-0.36, 0.15, 0.36, 0.65), other)
    brush.fill(box(-0.17, -1.05, 0.17, -0.85), other)


def bus(brush: Brush, main: Colour, other: Colour) -> None:
    brush.fill(box(-1.1, -0.6, 1.1, 0.5), main)
    for x in np.arange(-0.95, 0.9, 0.5):
        brush.fill(box(x, -0.4, x + 0.36, 0.0), other)
    for x in (-0.6, 0.6):
        brush.disc(x, 0.5, 0.28, (25, 25, 25))
        brush.disc(x, 0.5, 0.1, (170, 170, 170))


def butterfly(brush: Brush, main: Colour, other: Colour) -> None:
    for side in (-1, 1):
        brush.fill(oval(0.5 * side, -0.4, 0.55, 0.42, 0.6 * -side), main)
        brush.fill(oval(0.42 * side, 0.42, 0.42, 0.32, 0.7 * side), main)
        brush.disc(0.55 * side, -0.42, 0.2, other)
        brush.stroke([(0, -0.5), (0.25 * side, -1)], 0.06, (25, 20, 20))
    brush.fill(oval(0, 0, 0.1, 0.65), (25, 20, 20))


def chair(brush: Brush, main: Colour, other: Colour) -> None:
    brush.fill(box(-0.6, -1, -0.4, 1), main)
    brush.fill(box(-0.6, 0, 0.65, 0.22), main)
    brush.fill(box(0.45, 0.1, 0.65, 1), main)
    brush.fill(box(-0.4, -0.14, 0.65, 0.02), other)


def clock(brush: Brush, main: Colour, other: Colour) -> None:
    brush.disc(0, 0, 1, main)
    brush.disc(0, 0, 0.78, (240, 240, 235))
    brush.stroke([(0, 0), (0, -0.62)], 0.1, shade(main, 0.3))
    brush.stroke([(0, 0), (0.42, 0.2)], 0.12, shade(main, 0.3))


def cup(brush: Brush, main: Colour, other: Colour) -> None:
    ring = oval(0.6, 0.1, 0.42, 0.42)
    brush.stroke([*ring, ring[0]], 0.16, main)
    brush.fill([(-0.75, -0.7), (0.65, -0.7), (0.45, 0.85), (-0.55, 0.85)], main)
    brush.fill(oval(-0.05, -0.7, 0.7, 0.2), other)


def fish(brush: Brush, main: Colour, other: Colour) -> None:
    brush.fill([(-0.5, 0), (-1.15, -0.55), (-1.0, 0), (-1.15, 0.55)], other)
    brush.fill([(-0.2, -0.4), (0.25, -0.85), (0.35, -0.3)], other)
    brush.fill(oval(0.15, 0, 0.85, 0.5), main)
    brush.disc(0.6, -0.12, 0.13, (245, 245, 245))
    brush.disc(0.62, -0.12, 0.07, (10, 10, 10))


def house(brush: Brush, main: Colour, other: Colour) -> None:
    brush.fill(box(-0.75, -0.1, 0.75, 0.95), main)
    brush.fill([(-1, -0.05), (0, -1), (1, -0.05)], other)
    brush.fill(box(-0.12, 0.4, 0.2, 0.95), shade(main, 0.4))
    for x in (-0.55, 0.35):
        brush.fill(box(x, 0.1, x + 0.25, 0.38), shade(main, 0.5))


def lamp(brush: Brush, main: Colour, other: Colour) -> None:
    brush.fill([(-0.35, -1), (0.35, -1), (0.75, -0.1), (-0.75, -0.1)], main)
    brush.stroke([(0, -0.1), (0, 0.85)], 0.12, other)
    brush.fill(oval(0, 0.9, 0.5, 0.15), other)


def mushroom(brush: Brush, main: Colour, other: Colour) -> None:
    brush.fill([(-0.22, 0), (0.22, 0), (0.32, 1), (-0.32, 1)], (235, 225, 205))
    t = np.linspace(np.pi, 2 * np.pi, 16)
    brush.fill(np.stack([0.98 * np.cos(t), 0.15 + 1.0 * np.sin(t)], axis=1), main)
    for x, y in ((-0.5, -0.2), (0, -0.55), (0.5, -0.2)):
        brush.disc(x, y, 0.16, (245, 240, 235))


def rocket(brush: Brush, main: Colour, other: Colour) -> None:
    brush.fill([(-0.3, 0.2), (-0.75, 0.85), (-0.3, 0.65)], other)
    brush.fill([(0.3, 0.2), (0.75, 0.85), (0.3, 0.65)], other)
    brush.fill([(-0.2, 0.7), (0, 1.2), (0.2, 0.7)], (250, 170, 40))
    brush.fill([(-0.32, 0.7), (-0.32, -0.4), (0, -1.1), (0.32, -0.4), (0.32, 0.7)], main)
    brush.disc(0, -0.2, 0.16, other)


OBJECTS: dict[str, Callable[[Brush, Colour, Colour], None]] = {
    draw.__name__: draw
    for draw in (apple, bottle, bus, butterfly, chair, clock, cup, fish, house, lamp, mushroom, rocket)
}

HUES = {"apple": 0.0, "bottle": 0.38, "bus": 0.13, "butterfly": 0.58, "chair": 0.07, "clock": 0.62, "cup": 0.5, "fish": 0.05,
        "house": 0.03, "lamp": 0.15, "mushroom": 0.99, "rocket": 0.8}  # fmt: skip
"""The usual hue of a thing; a third of them are of any."""


def scene(rng: Rng, size: tuple[int, int]) -> Canvas:
    """A wall or sky over ground, and clutter."""
    wall, ground = (hsv(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.3, 0.95)) for _ in range(2))
    canvas = backdrop(rng, size, wall)
    canvas.brush().fill(box(0, rng.uniform(0.4, 0.95) * size[1], *size), ground)
    scatter(canvas, rng, int(rng.integers(1, 4)), (2, 7))
    return canvas


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    size = (SIDE, SIDE)
    canvas = scene(rng, size)
    typical = rng.random() < 0.65
    hue = HUES[sample.name] + rng.normal(0, 0.03) if typical else rng.random()
    main = hsv(hue, rng.uniform(0.6, 1), rng.uniform(0.5, 1))
    pose = random_pose(rng, size, (20, 27), 8, 0.22, mirror=True)
    OBJECTS[sample.name](canvas.brush(pose), main, contrasting(rng, main, 60))
    return photograph(canvas.array(), rng)


KIND = Kind("cifar100", tuple(OBJECTS), paint)
