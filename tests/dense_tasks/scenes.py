"""Scenes whose depth and normals are known: a plane and a sphere before a pinhole camera, traced ray by ray."""

from dataclasses import dataclass

import numpy as np

from dense_tasks.data.normals import Camera


@dataclass(frozen=True)
class Scene:
    """What a camera sees: colours (H, W, 3), classes (H, W), depth (H, W), normals (H, W, 3) with x right, y up, z to it."""

    image: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


def rays(camera: Camera, height: int, width: int) -> np.ndarray:
    """Points at depth 1 of every pixel, x right, y down, z forward."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones((height, width))], axis=-1)


def plane(camera: Camera, height: int, width: int, normal: tuple[float, float, float], distance: float) -> Scene:
    """The plane of points P with n P = -distance (n in the camera's axes, towards the camera)."""
    n = np.array(normal) / np.linalg.norm(normal)
    seen = rays(camera, height, width)
    depth = -distance / (seen @ n)
    assert (depth > 0).all()
    return _scene(seen, depth, np.broadcast_to(n, seen.shape), np.zeros((height, width), dtype=int))


def sphere(camera: Camera, height: int, width: int, centre: tuple[float, float, float], radius: float) -> Scene:
    """A ball before nothing: depth is 0 beside it."""
    seen, c = rays(camera, height, width), np.array(centre)
    along, square = seen @ c, (seen**2).sum(-1)
    inside = along**2 - square * (c @ c - radius**2)
    depth = np.where(inside > 0, (along - np.sqrt(np.maximum(inside, 0))) / square, 0)
    hit = depth > 0
    normal = np.where(hit[..., None], (seen * depth[..., None] - c) / radius, 0)
    return _scene(seen, depth, normal, np.where(hit, 1, -1))


def _scene(seen: np.ndarray, depth: np.ndarray, normal: np.ndarray, label: np.ndarray) -> Scene:
    points = seen * depth[..., None]
    image = 0.5 + 0.5 * np.sin(points * np.array([2.0, 3.0, 1.0]))  # smooth colours that are fixed to the surface
    return Scene(image, label, depth, normal * np.array([1, -1, -1]))


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Degrees between vectors in the last axis."""
    cosine = (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
