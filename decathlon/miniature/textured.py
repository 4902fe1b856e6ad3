"""imagenet12: composite things with a textured cover; a class is a thing and its texture, so both are needed."""

import numpy as np
from PIL import Image

from decathlon.miniature.drawing import (
    SCALE,
    Brush,
    Colour,
    backdrop,
    box,
    contrasting,
    muted,
    oval,
    photograph,
    random_pose,
    scatter,
    shade,
    vivid,
)
from decathlon.miniature.sample import SIDE, Kind, Pixels, Rng, Sample

THINGS = ("balloon", "pot", "sofa", "tent")
COVERS = ("checked", "dotted", "striped")


def cover(rng: Rng, texture: str, size: tuple[int, int], period: float, colours: tuple[Colour, Colour]) -> Image.Image:
    """An image of `size` (canvas pixels) of checks, dots or stripes of the given period (canvas pixels), turned at random."""
    angle, (ox, oy) = rng.uniform(-0.5, 0.5), rng.uniform(0, period, 2)
    x, y = np.arange(size[0], dtype=np.float32)[None, :], np.arange(size[1], dtype=np.float32)[:, None]
    u = (x * np.cos(angle) + y * np.sin(angle) + ox) / period
    v = (y * np.cos(angle) - x * np.sin(angle) + oy) / period
    if texture == "striped":
        ink = (u if rng.random() < 0.5 else v) % 1 < 0.5
    elif texture == "checked":
        ink = (u % 1 < 0.5) != (v % 1 < 0.5)
    else:
        ink = np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.33
    palette = np.array(colours, dtype=np.uint8)
    return Image.fromarray(palette[ink.astype(np.intp)])


def balloon(brush: Brush, fabric: Image.Image, plain: Colour) -> None:
    for side in (-1, 1):
        brush.stroke([(0.55 * side, 0.2), (0.2 * side, 0.95)], 0.05, plain)
    brush.fill(box(-0.24, 0.8, 0.24, 1.15), plain)
    brush.paste(oval(0, -0.25, 0.82), fabric)


def pot(brush: Brush, fabric: Image.Image, plain: Colour) -> None:
    for side in (-1, 1):
        ring = oval(0.8 * side, -0.05, 0.3, 0.34)
        brush.stroke([*ring, ring[0]], 0.13, plain)
    brush.paste([(-0.85, -0.5), (0.85, -0.5), (0.55, 0.95), (-0.55, 0.95)], fabric)
    brush.fill(box(-1, -0.68, 1, -0.42), plain)
    brush.fill(oval(0, -0.8, 0.18), plain)


def sofa(brush: Brush, fabric: Image.Image, plain: Colour) -> None:
    for side in (-1, 1):
        brush.fill(box(min(0.8 * side, 0.95 * side), 0.5, max(0.8 * side, 0.95 * side), 0.9), plain)
        brush.fill(oval(1.0 * side, 0.15, 0.26, 0.42), plain)
    brush.paste(box(-0.9, -0.65, 0.9, 0.6), fabric)
    brush.fill(box(-1, 0.3, 1, 0.6), plain)


def tent(brush: Brush, fabric: Image.Image, plain: Colour) -> None:
    brush.stroke([(0, -1.05), (0, -0.7)], 0.07, plain)
    brush.paste([(0, -0.9), (1.15, 0.85), (-1.15, 0.85)], fabric)
    brush.fill([(0, 0.0), (0.34, 0.85), (-0.34, 0.85)], plain)


DRAW = dict(zip(THINGS, (balloon, pot, sofa, tent), strict=True))


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    texture, thing = sample.name.split("_")
    long = int(rng.integers(SIDE, 104))
    size = (long, SIDE) if rng.random() < 0.7 else (SIDE, long)
    ground = muted(rng)
    canvas = backdrop(rng, size, ground)
    scatter(canvas, rng, int(rng.integers(0, 4)), (3, 8))
    light = vivid(rng)
    colours = (light, contrasting(rng, light, 100))
    pose = random_pose(rng, size, (23, 28), 5, 0.15, mirror=True)
    fabric = cover(rng, texture, canvas.image.size, SCALE * rng.uniform(10, 13), colours)
    DRAW[thing](canvas.brush(pose), fabric, shade(contrasting(rng, ground, 80), 0.9))
    return photograph(canvas.array(), rng)


KIND = Kind("imagenet12", tuple(f"{cover}_{thing}" for cover in COVERS for thing in THINGS), paint)
