"""ucf101: dynamic images of gestures. As in rank pooling (Bilen et al. 2016), the frames of a short clip are summed with weights
that grow over time, so that what moves leaves a trail from dark (where it was) to bright (where it is) on mid-grey."""

from collections.abc import Callable

import numpy as np

from decathlon.miniature.drawing import Floats, smooth_noise
from decathlon.miniature.sample import SIDE, Kind, Pixels, Rng, Sample

FRAMES = 24
Moves = list[Floats]
"""Per moving part an array (FRAMES, 5): x, y, half length, half width (in units of the gesture's size), angle."""


def part(x: Floats | float, y: Floats | float, long: Floats | float = 0.22, wide: Floats | float = 0.22,
         angle: Floats | float = 0.0) -> Floats:  # fmt: skip
    """The track of one part; numbers stand for what does not change."""
    return np.stack(
        [np.broadcast_to(np.asarray(value, dtype=float), FRAMES) for value in (x, y, long, wide, angle)], axis=1
    )


def bounce(t: Floats, rng: Rng) -> Moves:
    return [part(2 * t - 1, 0.7 - 1.3 * np.abs(np.sin(2 * np.pi * t)))]


def circle(t: Floats, rng: Rng) -> Moves:
    start = rng.uniform(0, 6.3)
    return [part(0.75 * np.cos(5.6 * t + start), 0.75 * np.sin(5.6 * t + start))]


def clap(t: Floats, rng: Rng) -> Moves:
    return [part(side * (0.95 - 0.75 * t), 0.0, 0.14, 0.4) for side in (-1, 1)]


def drop(t: Floats, rng: Rng) -> Moves:
    return [part(0.0, 1.9 * t - 0.95, 0.28, 0.22)]


def lift(t: Floats, rng: Rng) -> Moves:
    """Both hands up."""
    return [part(0.6 * side, 0.9 - 1.8 * t, 0.17, 0.17) for side in (-1, 1)]


def pull(t: Floats, rng: Rng) -> Moves:
    """Something goes away: it shrinks."""
    return [part(0.0, 0.0, 0.95 - 0.7 * t, 0.95 - 0.7 * t)]


def push(t: Floats, rng: Rng) -> Moves:
    """Something comes near: it grows."""
    return [part(0.0, 0.0, 0.25 + 0.7 * t, 0.25 + 0.7 * t)]


def rise(t: Floats, rng: Rng) -> Moves:
    return [part(0.0, 0.95 - 1.9 * t, 0.28, 0.22)]


def slide(t: Floats, rng: Rng) -> Moves:
    return [part(2 * t - 1, 0.0, 0.24, 0.24)]


def spin(t: Floats, rng: Rng) -> Moves:
    """A bar turns about its middle."""
    return [part(0.0, 0.0, 0.95, 0.13, rng.uniform(0, 3.1) + 1.9 * t)]


def spread(t: Floats, rng: Rng) -> Moves:
    return [part(side * (0.2 + 0.75 * t), 0.0, 0.14, 0.4) for side in (-1, 1)]


def swing(t: Floats, rng: Rng) -> Moves:
    """An arm swings about a joint above it."""
    angle = np.pi / 2 + 1.0 * np.cos(3.1 * t)
    return [part(0.75 * np.cos(angle), 0.75 * np.sin(angle) - 0.6, 0.75, 0.12, angle)]


def zigzag(t: Floats, rng: Rng) -> Moves:
    """Down in zigzag."""
    return [part(0.75 * (4 * np.abs((1.5 * t) % 1 - 0.5) - 1), 1.9 * t - 0.95, 0.18, 0.18)]


GESTURES: dict[str, Callable[[Floats, Rng], Moves]] = {
    gesture.__name__: gesture
    for gesture in (bounce, circle, clap, drop, lift, pull, push, rise, slide, spin, spread, swing, zigzag)
}


def trail(track: Floats, weights: Floats) -> Floats:
    """Weighted sum (SIDE, SIDE) of a part's soft-edged ellipses over the frames; `track` in pixels."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    cx, cy, long, wide, angle = (column[:, None, None].astype(np.float32) for column in track.T)
    dx, dy = x - cx, y - cy
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / long
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / wide
    inside = np.clip((1.15 - np.hypot(u, v)) * 2.2, 0, 1)
    return np.tensordot(weights, inside.astype(np.float64), axes=1)


def in_pixels(track: Floats, rng: Rng, frame: tuple[float, float, float, float, float]) -> Floats:
    """The track turned by a little, scaled and moved: `frame` is x, y, size, angle, facing (-1 or 1)."""
    x0, y0, size, turn, facing = frame
    x, y = facing * track[:, 0], track[:, 1]
    cos, sin = np.cos(turn), np.sin(turn)
    angle = np.where(facing < 0, np.pi - track[:, 4], track[:, 4]) + turn
    placed = (
        x0 + size * (x * cos - y * sin),
        y0 + size * (x * sin + y * cos),
        size * track[:, 2],
        size * track[:, 3],
        angle,
    )
    return np.stack(placed, axis=1)


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    pace = rng.uniform(0.75, 1.35)
    t = np.linspace(0, 1, FRAMES) ** pace
    x, y = SIDE / 2 + rng.uniform(-13, 13, 2)
    frame = (x, y, rng.uniform(16, 27), rng.uniform(-0.3, 0.3), float(rng.choice((-1, 1))))
    weights = np.linspace(-1, 1, FRAMES)
    moved = np.stack([trail(in_pixels(track, rng, frame), weights) for track in GESTURES[sample.name](t, rng)]).sum(0)
    moved = moved / (np.abs(moved).max() + 1e-6)
    shaken = smooth_noise(rng, (SIDE, SIDE), 12) * 5 + smooth_noise(rng, (SIDE, SIDE), 5, 3) * 4
    tint = rng.uniform(0.75, 1, 3) * rng.uniform(60, 105)
    picture = 128 + moved[..., None] * tint + shaken + rng.normal(0, 4, (SIDE, SIDE, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)


KIND = Kind("ucf101", tuple(GESTURES), paint)
