"""Shared means of drawing: a supersampled canvas, poses, colours, backdrops and the look of a photograph.

Coordinates are output pixels, x to the right and y down. Objects are drawn in their own frame, about [-1, 1] in both
directions, which a `Pose` lays onto the canvas. Colours are RGB triples in 0..255.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from decathlon.miniature.sample import Pixels, Rng

SCALE = 2  # canvas pixels per output pixel
Colour = tuple[int, int, int]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """Where an object's frame lies: centre and half size in output pixels, angle in radians, stretch of x, mirror."""

    x: float
    y: float
    size: float
    angle: float = 0.0
    stretch: float = 1.0
    mirror: bool = False

    def __call__(self, points: ArrayLike) -> Floats:
        """Points (n, 2) of the object's frame in output pixels."""
        frame = np.asarray(points, dtype=np.float64) * (self.stretch * (-1 if self.mirror else 1), 1)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return frame @ np.array([[cos, sin], [-sin, cos]]) * self.size + (self.x, self.y)


def random_pose(
    rng: Rng, size: tuple[int, int], half: tuple[float, float], shift: float, turn: float, mirror: bool = False
) -> Pose:
    """A pose near the middle of an image of `size` (width, height): half size from `half`, moved by up to `shift` pixels,
    turned by up to `turn` radians, narrowed or widened a little, facing either way if `mirror`."""
    dx, dy = rng.uniform(-shift, shift, 2)
    return Pose(
        size[0] / 2 + dx, size[1] / 2 + dy, rng.uniform(*half), rng.uniform(-turn, turn), rng.uniform(0.85, 1.15),
        mirror and bool(rng.random() < 0.5),
    )  # fmt: skip


def oval(x: float, y: float, rx: float, ry: float | None = None, angle: float = 0.0, points: int = 28) -> Floats:
    """An ellipse as a polygon (points, 2)."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    ring = np.stack([rx * np.cos(t), (rx if ry is None else ry) * np.sin(t)], axis=1)
    cos, sin = np.cos(angle), np.sin(angle)
    return ring @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def box(left: float, top: float, right: float, bottom: float) -> Floats:
    """A rectangle as a polygon (4, 2)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def regular(corners: int, radius: float = 1.0, angle: float = 0.0) -> Floats:
    """A regular polygon (corners, 2); at angle 0 a corner points up."""
    t = np.arange(corners) * 2 * np.pi / corners + angle - np.pi / 2
    return radius * np.stack([np.cos(t), np.sin(t)], axis=1)


class Canvas:
    """A backdrop that is drawn upon at `SCALE` times the output's resolution; `brush(pose)` gives what draws."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.size = (image.width // SCALE, image.height // SCALE)

    def brush(self, pose: Pose | None = None) -> "Brush":
        return Brush(self, pose or Pose(0, 0, 1))

    def array(self) -> Floats:
        """The picture at output resolution, (height, width, 3) in 0..255."""
        return np.asarray(self.image.reduce(SCALE), dtype=np.float64)


class Brush:
    """Draws in the frame of a pose."""

    def __init__(self, canvas: Canvas, pose: Pose) -> None:
        self.canvas = canvas
        self.pose = pose

    def _place(self, points: ArrayLike) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (self.pose(points) * SCALE).tolist()]

    def fill(self, points: ArrayLike, colour: Colour) -> None:
        """A filled polygon."""
        self.canvas.draw.polygon(self._place(points), fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.fill(oval(x, y, radius), colour)

    def stroke(self, points: ArrayLike, width: float, colour: Colour) -> None:
        """A line of the given width (in the object's frame) with round ends and joints."""
        placed = self._place(points)
        thick = max(1.0, width * self.pose.size * SCALE)
        self.canvas.draw.line(placed, fill=colour, width=round(thick), joint="curve")
        for x, y in (placed[0], placed[-1]):
            self.canvas.draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=colour)

    def paste(self, points: ArrayLike, texture: Image.Image) -> None:
        """A polygon filled with an image of the canvas's size."""
        mask = Image.new("L", self.canvas.image.size)
        ImageDraw.Draw(mask).polygon(self._place(points), fill=255)
        self.canvas.image.paste(texture, mask=mask)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue (wraps at 1), saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return round(255 * red), round(255 * green), round(255 * blue)


def vivid(rng: Rng) -> Colour:
    return hsv(rng.random(), rng.uniform(0.55, 1), rng.uniform(0.6, 1))


def muted(rng: Rng) -> Colour:
    return hsv(rng.random(), rng.uniform(0.05, 0.45), rng.uniform(0.2, 0.9))


def shade(colour: Sequence[float], factor: float) -> Colour:
    """The colour made darker (factor below 1) or lighter."""
    red, green, blue = (int(min(255, max(0, factor * c))) for c in colour)
    return red, green, blue


def luminance(colour: Sequence[float]) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def contrasting(rng: Rng, other: Sequence[float], least: float = 70) -> Colour:
    """A random colour whose luminance differs from that of `other` by `least` or more."""
    for _ in range(40):
        colour = hsv(rng.random(), rng.uniform(0, 1), rng.uniform(0.1, 1))
        if abs(luminance(colour) - luminance(other)) >= least:
            return colour
    return (250, 250, 250) if luminance(other) < 128 else (10, 10, 10)


def smooth_noise(rng: Rng, size: tuple[int, int], cells: int, channels: int = 1) -> Floats:
    """Smooth noise (height, width, channels), about standard normal, `cells` bumps across the shorter side."""
    width, height = size
    step = min(width, height) / cells
    grid = rng.standard_normal((channels, int(height / step) + 2, int(width / step) + 2)).astype(np.float32)
    planes = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC)) for plane in grid]
    return np.stack(planes, axis=2).astype(np.float64)


def backdrop(rng: Rng, size: tuple[int, int], colour: Colour, uneven: float = 18, cells: int = 2) -> Canvas:
    """A canvas for an output of `size` (width, height): `colour`, unevenly lit and tinted by up to about 2 `uneven`."""
    width, height = size
    half = (width // 2, height // 2)
    noise = (
        smooth_noise(rng, half, cells) + 0.5 * smooth_noise(rng, half, 2 * cells) + 0.4 * smooth_noise(rng, half, 3, 3)
    )
    small = np.clip(np.asarray(colour) + uneven * noise, 0, 255).astype(np.uint8)
    return Canvas(Image.fromarray(small).resize((SCALE * width, SCALE * height), Image.Resampling.BILINEAR))


def scatter(canvas: Canvas, rng: Rng, count: int, half: tuple[float, float] = (3, 12)) -> None:
    """Clutter: polygons, discs and lines in muted colours anywhere on the canvas."""
    for _ in range(count):
        x, y = rng.random(2) * canvas.size
        pose = Pose(x, y, rng.uniform(*half), rng.uniform(0, 6.3), rng.uniform(0.3, 1.2))
        brush, colour, what = canvas.brush(pose), muted(rng), rng.integers(3)
        if what == 0:
            brush.fill(regular(int(rng.integers(3, 7))), colour)
        elif what == 1:
            brush.fill(oval(0, 0, 1), colour)
        else:
            brush.stroke([(-1, 0), (1, 0)], 0.2, colour)


def photograph(picture: Floats, rng: Rng, grain: float = 6, light: float = 0.25, grey: bool = False) -> Pixels:
    """The picture as a camera sees it: other exposure and contrast, a gradient of light, grain. 0..255 in and out."""
    height, width = picture.shape[:2]
    slope_x, slope_y = rng.uniform(-light, light, 2)
    lit = 1 + slope_x * np.linspace(-0.5, 0.5, width)[None, :] + slope_y * np.linspace(-0.5, 0.5, height)[:, None]
    gain, offset = rng.uniform(1 - light, 1 + light), rng.uniform(-80, 80) * light
    seen = 128 + gain * (picture * lit[..., None] - 128) + offset
    seen = seen + rng.standard_normal((height, width, 1 if grey else 3)) * rng.uniform(0.3, 1) * grain
    return np.clip(seen, 0, 255).astype(np.uint8)
