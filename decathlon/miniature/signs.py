"""gtsrb: traffic signs, told apart by outline, colour and glyph; left and right carry the label."""

from collections.abc import Callable

import numpy as np

from decathlon.miniature.drawing import (
    Brush,
    Canvas,
    Colour,
    Pose,
    backdrop,
    box,
    hsv,
    muted,
    oval,
    photograph,
    random_pose,
    regular,
    scatter,
)
from decathlon.miniature.sample import SIDE, Kind, Pixels, Rng, Sample

Glyph = Callable[[Brush, Colour], None]
RED, BLUE, YELLOW, WHITE, BLACK = (195, 25, 35), (25, 75, 180), (245, 195, 30), (240, 240, 238), (20, 20, 22)


def none(brush: Brush, colour: Colour) -> None:
    """No glyph."""


def one(brush: Brush, colour: Colour) -> None:
    brush.fill(box(-0.13, -0.55, 0.13, 0.55), colour)


def two(brush: Brush, colour: Colour) -> None:
    for x in (-0.3, 0.3):
        brush.fill(box(x - 0.13, -0.5, x + 0.13, 0.5), colour)


def bar(brush: Brush, colour: Colour) -> None:
    brush.fill(box(-0.68, -0.2, 0.68, 0.2), colour)


def slash(brush: Brush, colour: Colour) -> None:
    brush.stroke([(-0.55, -0.55), (0.55, 0.55)], 0.25, colour)


def letters(brush: Brush, colour: Colour) -> None:
    for x in (-0.6, -0.2, 0.2, 0.6):
        brush.fill(box(x - 0.11, -0.28, x + 0.11, 0.28), colour)


def warning(brush: Brush, colour: Colour) -> None:
    brush.fill(box(-0.1, -0.4, 0.1, 0.2), colour)
    brush.disc(0, 0.36, 0.12, colour)


def arrow(angle: float) -> Glyph:
    """An arrow; at angle 0 it points up."""
    cos, sin = np.cos(angle), np.sin(angle)
    outline = [(0, -0.8), (0.62, -0.1), (0.2, -0.1), (0.2, 0.7), (-0.2, 0.7), (-0.2, -0.1), (-0.62, -0.1)]

    def draw(brush: Brush, colour: Colour) -> None:
        brush.fill(np.array(outline) @ np.array([[cos, sin], [-sin, cos]]), colour)

    return draw


def bend(side: int) -> Glyph:
    """A road that bends to the left (-1) or the right (1)."""

    def draw(brush: Brush, colour: Colour) -> None:
        brush.stroke([(-0.25 * side, 0.5), (-0.25 * side, 0.1), (0.15 * side, -0.05)], 0.2, colour)
        brush.fill([(0.1 * side, -0.36), (0.1 * side, 0.26), (0.52 * side, -0.05)], colour)

    return draw


def roundabout(brush: Brush, colour: Colour) -> None:
    ring = oval(0, 0, 0.5)
    brush.stroke([*ring, ring[0]], 0.2, colour)


def ban(glyph: Glyph) -> Glyph:
    """White disc with a red rim."""

    def draw(brush: Brush, _: Colour) -> None:
        brush.disc(0, 0, 1, RED)
        brush.disc(0, 0, 0.76, WHITE)
        glyph(brush, BLACK)

    return draw


def order(glyph: Glyph) -> Glyph:
    """Blue disc."""

    def draw(brush: Brush, _: Colour) -> None:
        brush.disc(0, 0, 1, WHITE)
        brush.disc(0, 0, 0.93, BLUE)
        glyph(brush, WHITE)

    return draw


def panel(
    corners: int, angle: float, rim: Colour, inner: Colour, ink: Colour, glyph: Glyph, thickness: float = 0.3
) -> Glyph:
    """A polygon with a rim."""

    def draw(brush: Brush, _: Colour) -> None:
        brush.fill(regular(corners, 1.12, angle), rim)
        brush.fill(regular(corners, 1.12 - thickness, angle), inner)
        glyph(brush, ink)

    return draw


def end_of_limit(brush: Brush, _: Colour) -> None:
    brush.disc(0, 0, 1, BLACK)
    brush.disc(0, 0, 0.9, WHITE)
    for offset in (-0.25, 0.0, 0.25):
        brush.stroke([(-0.5 + offset, 0.5 + offset), (0.5 + offset, -0.5 + offset)], 0.1, BLACK)


def no_entry(brush: Brush, _: Colour) -> None:
    brush.disc(0, 0, 1, RED)
    bar(brush, WHITE)


SIGNS: dict[str, Glyph] = {
    "TrafficSign0": ban(one),
    "TrafficSign1": ban(two),
    "TrafficSign2": ban(slash),
    "TrafficSign3": no_entry,
    "TrafficSign4": panel(8, np.pi / 8, WHITE, RED, WHITE, letters, 0.1),
    "TrafficSign5": panel(3, 0, RED, WHITE, BLACK, warning, 0.36),
    "TrafficSign6": panel(3, 0, RED, WHITE, BLACK, bend(-1), 0.36),
    "TrafficSign7": panel(3, 0, RED, WHITE, BLACK, bend(1), 0.36),
    "TrafficSign8": panel(3, np.pi, RED, WHITE, BLACK, none, 0.45),
    "TrafficSign9": panel(4, 0, WHITE, YELLOW, BLACK, none),
    "TrafficSign10": order(arrow(0)),
    "TrafficSign11": order(arrow(-np.pi / 2)),
    "TrafficSign12": order(arrow(np.pi / 2)),
    "TrafficSign13": order(roundabout),
    "TrafficSign14": end_of_limit,
}


def street(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Sky, leaves or walls behind a pole, out of focus."""
    canvas = backdrop(rng, size, muted(rng), 35, 5)
    scatter(canvas, rng, int(rng.integers(3, 8)), (4, 16))
    return canvas


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    size = (int(rng.integers(SIDE, 90)), SIDE) if rng.random() < 0.5 else (SIDE, int(rng.integers(SIDE, 90)))
    canvas = street(rng, size)
    pose = random_pose(rng, size, (19, 28), 11, 0.16)
    pole = Pose(pose.x, pose.y, pose.size)
    canvas.brush(pole).fill(box(-0.09, 0, 0.09, 5), hsv(0, 0, rng.uniform(0.3, 0.7)))
    SIGNS[sample.name](canvas.brush(pose), BLACK)
    return photograph(canvas.array(), rng, grain=10, light=0.45)


KIND = Kind("gtsrb", tuple(sorted(SIGNS)), paint)
