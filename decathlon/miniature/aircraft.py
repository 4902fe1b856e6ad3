"""aircraft: side views of planes, told apart by wing, tail, engines, nose and undercarriage."""

from dataclasses import dataclass

import numpy as np

from decathlon.miniature.drawing import (
    Brush,
    Canvas,
    Colour,
    Floats,
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


@dataclass(frozen=True)
class Plane:
    """Build of a plane in a frame where it is 2 long, its nose at x = 1, y down."""

    radius: float = 0.12  # of the fuselage
    nose: float = 0.25  # length of its rounding; long is pointed
    wing: str = "low"  # see WINGS
    tail: str = "low"  # see FINS
    engines: str = "none"  # pods, rear, propeller, turboprops
    extras: tuple[str, ...] = ()  # canopy, floats, gear, gondola, hump, ramp


PLANES = {
    "airliner": Plane(0.12, 0.2, "low", "low", "pods"),
    "airship": Plane(0.38, 0.9, "none", "cross", "none", ("gondola",)),
    "biplane": Plane(0.14, 0.12, "double", "low", "propeller", ("gear",)),
    "cargo": Plane(0.22, 0.25, "high", "tee", "turboprops", ("ramp",)),
    "fighter": Plane(0.11, 0.9, "delta", "twin", "none", ("canopy",)),
    "flying wing": Plane(0.0, 0.3, "flying", "none"),
    "glider": Plane(0.07, 0.3, "long", "tee"),
    "jumbo": Plane(0.19, 0.25, "low", "low", "pods", ("hump",)),
    "regional jet": Plane(0.11, 0.25, "back", "tee", "rear"),
    "seaplane": Plane(0.14, 0.2, "high", "low", "propeller", ("floats",)),
    "supersonic": Plane(0.06, 0.7, "needle", "none"),
    "trainer": Plane(0.14, 0.15, "high", "low", "propeller", ("gear",)),
}

WINGS: dict[str, list[list[tuple[float, float]]]] = {
    "none": [],
    "low": [[(0.3, 0.04), (-0.15, 0.04), (-0.6, 0.46), (-0.38, 0.46)]],
    "back": [[(-0.1, 0.04), (-0.45, 0.04), (-0.8, 0.36), (-0.62, 0.36)]],
    "high": [[(0.5, -0.3), (-0.15, -0.3), (-0.2, -0.15), (0.5, -0.15)]],
    "double": [[(0.65, -0.46), (0.0, -0.46), (0.0, -0.34), (0.65, -0.34)], [(0.5, 0.1), (-0.15, 0.1), (-0.15, 0.22), (0.5, 0.22)]],
    "delta": [[(0.35, 0.02), (-0.85, 0.02), (-0.85, 0.34)]],
    "needle": [[(0.45, 0.02), (-0.2, 0.12), (-0.95, 0.36), (-0.95, 0.02)], [(-0.5, 0), (-0.85, -0.36), (-1, -0.36), (-0.95, 0)]],
    "long": [[(0.25, -0.05), (0.0, -0.05), (-0.5, -0.55), (-0.6, -0.53)], [(0.25, 0.0), (0.0, 0.0), (0.4, 0.45), (0.48, 0.42)]],
    "flying": [[(1.0, 0.08), (0.1, -0.22), (-1.0, -0.06), (-0.6, 0.08), (-0.85, 0.26), (0.2, 0.2)]],
}  # fmt: skip

FINS: dict[str, list[list[tuple[float, float]]]] = {
    "low": [[(-0.6, -0.05), (-0.85, -0.48), (-1.05, -0.48), (-0.95, 0)], [(-0.7, -0.02), (-1.15, 0.1), (-1.15, 0.18), (-0.85, 0.1)]],
    "tee": [[(-0.65, -0.05), (-0.85, -0.5), (-1, -0.5), (-0.95, 0)], [(-0.6, -0.58), (-1.25, -0.58), (-1.25, -0.46), (-0.7, -0.46)]],
    "twin": [[(-0.4, -0.05), (-0.65, -0.48), (-0.78, -0.48), (-0.68, 0)], [(-0.72, -0.05), (-0.95, -0.48), (-1.08, -0.48), (-0.98, 0)]],
    "cross": [[(-0.6, -0.2), (-0.85, -0.52), (-1.1, -0.52), (-0.95, 0)], [(-0.6, 0.2), (-0.85, 0.52), (-1.1, 0.52), (-0.95, 0)]],
    "none": [],
}  # fmt: skip


def fuselage(plane: Plane) -> Floats:
    """Outline of the body: round or pointed nose, tapering tail."""
    t = np.linspace(0, np.pi / 2, 8)
    nose = np.stack([1 - plane.nose + plane.nose * np.sin(t), plane.radius * np.cos(t)], axis=1)
    tail = np.array([(-1.0, -plane.radius * 0.8), (-1.0, -plane.radius * 0.3), (-0.5, plane.radius)])
    return np.concatenate([nose * (1, -1), nose[::-1], tail[::-1]])


def _engines(brush: Brush, plane: Plane, dark: Colour) -> None:
    if plane.engines == "pods":
        for x in (0.12, -0.16):
            brush.fill(oval(x, 0.27 - 0.3 * x, 0.14, 0.08), dark)
    elif plane.engines == "rear":
        brush.fill(oval(-0.5, -0.1, 0.22, 0.1), dark)
    elif plane.engines == "propeller":
        brush.fill(oval(1.03, 0, 0.04, 0.4), dark)
    elif plane.engines == "turboprops":
        for x in (0.32, -0.02):
            brush.fill(oval(x, -0.1, 0.2, 0.08), dark)
            brush.fill(oval(x + 0.2, -0.1, 0.03, 0.26), dark)


def _extras(brush: Brush, plane: Plane, body: Colour, dark: Colour) -> None:
    if "hump" in plane.extras:
        brush.fill(oval(0.5, -0.2, 0.36, 0.13), body)
    if "ramp" in plane.extras:
        brush.fill([(-0.4, 0.22), (-1, -0.1), (-0.4, -0.1)], body)
    if "canopy" in plane.extras:
        brush.fill(oval(0.4, -0.1, 0.2, 0.09), dark)
    if "gondola" in plane.extras:
        brush.fill(box(-0.15, 0.36, 0.3, 0.5), dark)
    if "gear" in plane.extras:
        for x in (0.55, 0.1):
            brush.stroke([(x - 0.08, 0.1), (x, 0.4)], 0.05, dark)
            brush.disc(x, 0.42, 0.12, dark)
    if "floats" in plane.extras:
        for x in (0.5, -0.1):
            brush.stroke([(x, 0.1), (x, 0.4)], 0.04, dark)
        brush.fill([(1.0, 0.36), (0.75, 0.54), (-0.45, 0.54), (-0.65, 0.36)], body)


def draw_plane(brush: Brush, plane: Plane, body: Colour, trim: Colour) -> None:
    """One plane: tail and far parts first, the near wing last."""
    dark = shade(body, 0.45)
    for fin in FINS[plane.tail]:
        brush.fill(fin, trim)
    if plane.radius:
        brush.fill(fuselage(plane), body)
        brush.stroke([(-0.8, -0.01), (0.75, -0.01)], 0.03, trim)
    _extras(brush, plane, body, dark)
    for wing in WINGS[plane.wing]:
        brush.fill(wing, shade(body, 0.75))
    if plane.wing == "double":
        for x in (0.1, 0.4):
            brush.stroke([(x + 0.08, -0.3), (x, 0.12)], 0.03, dark)
    _engines(brush, plane, dark)


def sky(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Sky with clouds, often with ground and something on the horizon."""
    canvas = backdrop(rng, size, hsv(rng.uniform(0.5, 0.68), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.75)), 14, 2)
    if rng.random() < 0.6:
        line = rng.uniform(0.6, 0.95) * size[1]
        canvas.brush().fill(
            box(0, line, *size), hsv(rng.uniform(0.05, 0.4), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.7))
        )
        for _ in range(int(rng.integers(0, 5))):
            x, high = rng.uniform(0, size[0]), rng.uniform(2, 10)
            canvas.brush().fill(
                box(x, line - high, x + rng.uniform(3, 16), line), hsv(rng.random(), 0.2, rng.uniform(0.2, 0.8))
            )
    scatter(canvas, rng, int(rng.integers(0, 3)), (2, 5))
    return canvas


def paint(sample: Sample) -> Pixels:
    rng = sample.rng
    size = (int(rng.integers(100, 132)), SIDE)
    canvas = sky(rng, size)
    pale = rng.random() < 0.94
    body = hsv(rng.random(), rng.uniform(0, 0.2), rng.uniform(0.85, 1) if pale else rng.uniform(0.05, 0.2))
    pose = random_pose(rng, size, (0.31 * size[0], 0.42 * size[0]), 8, 0.17, mirror=True)
    draw_plane(canvas.brush(pose), PLANES[sample.name], body, contrasting(rng, body, 40))
    return photograph(canvas.array(), rng)


KIND = Kind("aircraft", tuple(PLANES), paint)
