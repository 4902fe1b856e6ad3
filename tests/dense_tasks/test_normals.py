"""Normals from depth: of planes and spheres, whose normals are known, and of the real frames."""

from pathlib import Path

import numpy as np
import pytest

from dense_tasks.data.normals import NYU_CAMERA, Camera, normals_from_depth
from tests.dense_tasks.scenes import angles, plane, sphere

HEIGHT, WIDTH = 120, 160
CAMERA = Camera(130.0, 131.0, 80.3, 61.7)


def off_by(found: np.ndarray, expected: np.ndarray, share: float = 0.99) -> np.ndarray:
    """Degrees where there is a normal, which is nearly everywhere."""
    there = (found != 0).any(-1)
    assert there.mean() >= share
    return angles(found[there], expected[there])


@pytest.mark.parametrize("normal", [(0.0, 0.0, -1.0), (0.3, -0.4, -0.8), (-0.6, 0.1, -0.5), (0.0, 0.2, -1.0)])
def test_a_plane_s_normal_is_found_everywhere(normal: tuple[float, float, float]) -> None:
    scene = plane(CAMERA, HEIGHT, WIDTH, normal, 9.0)
    found = normals_from_depth(scene.depth, CAMERA)
    assert off_by(found, scene.normal).max() < 0.1
    lengths = np.linalg.norm(found, axis=-1)
    np.testing.assert_allclose(lengths[lengths > 0], 1, atol=1e-6)


def test_a_sphere_s_normals() -> None:
    scene = sphere(CAMERA, HEIGHT, WIDTH, (0.1, -0.05, 3.0), 1.0)
    found = normals_from_depth(scene.depth, CAMERA, radius=2)
    inner = scene.normal[..., 2] > 0.7
    off = angles(found[inner], scene.normal[inner])
    assert off.max() < 2
    assert np.median(off) < 0.3
    assert (found[scene.depth == 0] == 0).all()


def test_noise_that_grows_with_depth_is_averaged() -> None:
    scene = plane(CAMERA, HEIGHT, WIDTH, (0.3, -0.4, -0.8), 2.5)
    noise = np.random.default_rng(0).normal(size=scene.depth.shape)
    noisy = 1 / (1 / scene.depth + 0.0005 * noise)
    means = [off_by(normals_from_depth(noisy, CAMERA, radius), scene.normal).mean() for radius in (1, 3, 6)]
    assert means[0] > 2 * means[1] > 4 * means[2]
    assert means[2] < 1


def test_surfaces_behind_each_other_do_not_mix() -> None:
    near = plane(CAMERA, HEIGHT, WIDTH, (0.2, 0.0, -1.0), 1.5)
    far = plane(CAMERA, HEIGHT, WIDTH, (-0.3, 0.2, -1.0), 4.0)
    left = np.arange(WIDTH) < 80
    depth = np.where(left, near.depth, far.depth)
    expected = np.where(left[:, None], near.normal, far.normal)
    assert angles(normals_from_depth(depth, CAMERA), expected).max() < 0.1


def test_undefined_depth_has_no_normal_and_does_not_disturb() -> None:
    scene = plane(CAMERA, HEIGHT, WIDTH, (0.3, -0.4, -0.8), 2.5)
    holes = np.random.default_rng(0).random(scene.depth.shape) < 0.3
    found = normals_from_depth(np.where(holes, 0, scene.depth), CAMERA)
    assert (found[holes] == 0).all()
    assert off_by(found[~holes], scene.normal[~holes], 0.98).max() < 0.1
    lonely = np.zeros((HEIGHT, WIDTH))
    lonely[60, 40:60] = 2.0  # a line has no plane
    assert (normals_from_depth(lonely, CAMERA, least=0.0) == 0).all()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("folder", "scale", "numbers"), [("nyuv2-dev", 0.2, range(0, 50, 5)), ("nyuv2-dev-288x384", 0.6, [0])]
)
def test_real_frames_agree_with_the_normals_given_there(
    shared: Path, folder: str, scale: float, numbers: range
) -> None:
    off = []
    for number in numbers:
        depth = np.load(shared / folder / f"val/depth/{number}.npy")[..., 0].astype(np.float64)
        given = np.load(shared / folder / f"val/normal/{number}.npy").astype(np.float64)
        found = normals_from_depth(depth, NYU_CAMERA.resized(scale, scale))
        both = (given != 0).any(-1) & (found != 0).any(-1)
        assert both.mean() > 0.9
        off.append(angles(found[both], given[both]))
    assert np.median(np.concatenate(off)) < 6
    assert (np.concatenate(off) < 30).mean() > 0.95
