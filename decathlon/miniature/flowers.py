"""vgg-flowers: flowers told apart by number and form of petals, by their heart, and by colours that classes share."""

from dataclasses import dataclass

import numpy as np

from decathlon.miniature.drawing import (
    Brush,
    Canvas,
    Colour,
    Floats,
    Pose,
    backdrop,
    hsv,
    oval,
    photograph,
    random_pose,
    shade,
)
from decathlon.miniature.sample import SIDE, Kind, Pixels, Rng, Sample

COLOURS = {  # hue, saturation
    "red": (0.98, 0.9), "orange": (0.07, 0.9), "yellow": (0.15, 0.85), "blue": (0.62, 0.75), "violet": (0.77, 0.65),
    "pink": (0.92, 0.5), "white": (0.15, 0.06),
}  # fmt: skip
HEARTS = {"dark": (0.06, 0.7, 0.22), "yellow": (0.14, 0.9, 0.95), "green": (0.27, 0.6, 0.5)}  # hue, saturation, value


@dataclass(frozen=True)
class Flower:
    """Build of a flower: petals per ring, their form, rings (from the outside), radius and colour of the heart, view."""

    colours: tuple[str, ...]
    petals: int = 5
    form: str = "round"  # round, pointed, thin, notched
    heart: float = 0.2
    heart_colour: str = "yellow"
    rings: int = 1
    view: str = "top"  # top, cup, bell, ball


FLOWERS = {
    "Flower1": Flower(("violet", "blue"), 3, "round", 0.16),
    "Flower2": Flower(("red", "orange"), 4, "round", 0.3, "dark"),
    "Flower3": Flower(("pink", "white"), 5, "notched", 0.16, "green"),
    "Flower4": Flower(("blue", "violet", "white"), 5, "pointed", 0.14),
    "Flower5": Flower(("orange", "yellow", "white"), 6, "pointed", 0.1, "dark", rings=2),
    "Flower6": Flower(("pink", "violet", "red"), 8, "round", 0.32),
    "Flower7": Flower(("white", "pink", "blue"), 16, "thin", 0.34),
    "Flower8": Flower(("yellow", "orange"), 14, "pointed", 0.55, "dark"),
    "Flower9": Flower(("red", "pink", "white"), 7, "round", 0.0, rings=4),
    "Flower10": Flower(("red", "yellow", "violet"), view="cup"),
    "Flower11": Flower(("blue", "violet", "white"), view="bell"),
    "Flower12": Flower(("violet", "blue", "white"), view="ball"),
}


def petal(form: str, count: int) -> Floats:
    """Outline of a petal from the middle along x to 1."""
    wide = {"round": 0.95, "pointed": 0.9, "thin": 0.6, "notched": 1.0}[form] * min(np.sin(np.pi / max(count, 3)), 0.5)
    t = np.linspace(0, np.pi, 12)
    length = 0.5 * (1 - np.cos(t))
    power, roundness = (0.8, 1.0) if form == "pointed" else (1.3, 0.7)
    half = wide * np.sin(np.pi * length**power).clip(0) ** roundness * (1 - 0.5 * length * (form == "pointed"))
    reach = length - (0.45 * (length > 0.8) * (1 - half / wide) if form == "notched" else 0)
    return np.concatenate([np.stack([reach, half], 1), np.stack([reach, -half], 1)[::-1]])


def from_above(brush: Brush, flower: Flower, rng: Rng, colour: Colour) -> None:
    """Rings of petals around a heart."""
    outline = petal(flower.form, flower.petals)
    for ring in range(flower.rings):
        radius = 1 - ring / flower.rings * 0.85
        for i in range(flower.petals):
            a = 2 * np.pi * (i + 0.5 * ring) / flower.petals + rng.normal(0, 0.05)
            turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
            tone = shade(colour, rng.uniform(0.8, 1.0) * (1 - 0.12 * ring))
            placed = outline * rng.uniform(0.9, 1.05) * radius @ turn
            brush.fill(placed, tone)
            brush.stroke([*placed, placed[0]], 0.04, shade(tone, 0.6))
    if flower.heart:
        hue, saturation, value = HEARTS[flower.heart_colour]
        heart = hsv(hue + rng.normal(0, 0.015), saturation, value * rng.uniform(0.8, 1.05))
        brush.disc(0, 0, flower.heart, heart)
        brush.disc(0, 0, flower.heart * 0.5, shade(heart, 0.7))


def cup(brush: Brush, rng: Rng, colour: Colour) -> None:
    """A tulip from the side."""
    brush.stroke([(0, 0.4), (rng.uniform(-0.2, 0.2), 1.5)], 0.12, (60, 120, 50))
    brush.fill([(-0.6, -0.75), (-0.15, 0.65), (0.15, 0.65), (0.6, -0.75), (0, 0.1)], shade(colour, 0.8))
    for side in (-1, 1):
        brush.fill(oval(0.3 * side, 0.05, 0.34, 0.75, 0.25 * side), shade(colour, 0.9))
    brush.fill(oval(0, 0.05, 0.32, 0.78), colour)


def bell(brush: Brush, rng: Rng, colour: Colour) -> None:
    """A stem of hanging bells."""
    brush.stroke([(-0.9, 1.1), (-0.5, -0.4), (0.2, -0.95), (0.8, -0.7)], 0.1, (60, 120, 50))
    for x, y in ((-0.45, -0.3), (0.2, -0.7), (0.8, -0.5)):
        form = np.array([(-0.12, 0), (0.12, 0), (0.24, 0.5), (0.36, 0.72), (0, 0.6), (-0.36, 0.72), (-0.24, 0.5)])
        brush.fill(form * rng.uniform(0.9, 1.15) + (x, y), shade(colour, rng.uniform(0.8, 1)))


def ball(brush: Brush, rng: Rng, colour: Colour) -> None:
    """A ball of many florets."""
    brush.stroke([(0, 0.6), (rng.uniform(-0.2, 0.2), 1.6)], 0.12, (60, 120, 50))
    for _ in range(70):
        radius, a = 0.85 * np.sqrt(rng.random()), rng.uniform(0, 6.3)
        brush.disc(radius * np.cos(a), radius * np.sin(a), 0.11, shade(colour, rng.uniform(0.5, 1.1)))


def meadow(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Leaves and grass, dark or bright, out of focus."""
    canvas = backdrop(rng, size, hsv(rng.uniform(0.2, 0.42), rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.4)), 20, 4)
    for _ in range(int(rng.integers(6, 14))):
        x, y = rng.random(2) * size
        pose = Pose(x, y, rng.uniform(8, 26), rng.uniform(0, 6.3))
        leaf = hsv(rng.uniform(0.18, 0.42), rng.uniform(0.3, 0.8), rng.uniform(0.15, 0.55))
        canvas.brush(pose).fill(oval(0, 0, 1, rng.uniform(0.12, 0.4)), leaf)
    return canvas


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    flower = FLOWERS[sample.name]
    long = int(rng.integers(SIDE, 110))
    size = (long, SIDE) if rng.random() < 0.7 else (SIDE, long)
    canvas = meadow(rng, size)
    hue, saturation = COLOURS[str(rng.choice(flower.colours))]
    colour = hsv(hue + rng.normal(0, 0.02), saturation * rng.uniform(0.7, 1.1), rng.uniform(0.8, 1))
    if flower.view == "top":
        from_above(canvas.brush(random_pose(rng, size, (21, 31), 9, np.pi)), flower, rng, colour)
    else:
        brush = canvas.brush(random_pose(rng, size, (20, 27), 9, 0.35, mirror=True))
        {"cup": cup, "bell": bell, "ball": ball}[flower.view](brush, rng, colour)
    return photograph(canvas.array(), rng, light=0.3)


KIND = Kind("vgg-flowers", tuple(sorted(FLOWERS)), paint)
