"""Augmented labels are those of the scene that the augmented image shows: rendered anew by the scaled or mirrored camera."""

import numpy as np
import pytest
import torch

from dense_tasks.data.augmentation import Augmentation, Views, apply_views, draw_views
from dense_tasks.data.normals import Camera
from dense_tasks.datasets import DATASETS
from dense_tasks.tasks import tasks
from tests.dense_tasks.scenes import Scene, angles, plane, sphere

HEIGHT, WIDTH = 96, 128
CAMERA = Camera(110.0, 112.0, 61.3, 50.9)
TASKS = tasks()


def render(kind: str, camera: Camera) -> Scene:
    if kind == "plane":
        return plane(camera, HEIGHT, WIDTH, (0.4, -0.3, -0.8), 2.0)
    return sphere(camera, HEIGHT, WIDTH, (0.2, 0.1, 3.0), 1.1)


def tensors(scene: Scene) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float()
    depth = torch.from_numpy(scene.depth)[None, None].float()
    normal = torch.from_numpy(scene.normal.copy()).permute(2, 0, 1)[None].float()
    return image, {"semantic": torch.from_numpy(scene.label)[None], "depth": depth, "normal": normal}


def view(scale: float, top: int = 0, left: int = 0, mirrored: bool = False) -> Views:
    return Views(np.array([scale]), np.array([top]), np.array([left]), np.array([mirrored]))


def camera_of(scale: float, top: int, left: int) -> Camera:
    """The camera whose whole image is the window: in coordinates of pixel corners x' = scale (x - left)."""
    across, down = (scale * (c + 0.5 - start) - 0.5 for c, start in ((CAMERA.cx, left), (CAMERA.cy, top)))
    return Camera(CAMERA.fx * scale, CAMERA.fy * scale, across, down)


@pytest.mark.parametrize("kind", ["plane", "sphere"])
@pytest.mark.parametrize(("scale", "top", "left"), [(1.2, 3, 9), (1.5, 0, 42), (1.5, 31, 0), (2.0, 48, 64)])
def test_zoomed_labels_are_those_of_the_scaled_camera(kind: str, scale: float, top: int, left: int) -> None:
    images, labels = apply_views(*tensors(render(kind, CAMERA)), view(scale, top, left), TASKS)
    scaled = render(kind, camera_of(scale, top, left))
    label, truth = labels["semantic"][0].numpy(), scaled.label
    assert (label == truth).mean() > 0.98  # edges move by less than a pixel
    inner = (label == truth) & (truth >= 0)
    facing = inner & (scaled.normal[..., 2] > 0.7)  # at a ball's rim half a pixel is a long way
    assert facing.sum() > 2000
    depth = labels["depth"][0, 0].numpy() * scale  # as from `scale` times nearer with the first camera's focal length
    np.testing.assert_allclose(depth[facing], scaled.depth[facing], rtol=0.02)
    off = angles(labels["normal"][0].permute(1, 2, 0).numpy()[facing], scaled.normal[facing])
    assert off.max() < 3
    np.testing.assert_allclose(images[0].permute(1, 2, 0).numpy()[facing], scaled.image[facing], atol=0.05)


@pytest.mark.parametrize("kind", ["plane", "sphere"])
def test_mirrored_labels_are_those_of_the_mirrored_scene(kind: str) -> None:
    images, labels = apply_views(*tensors(render(kind, CAMERA)), view(1.0, mirrored=True), TASKS)
    camera = Camera(CAMERA.fx, CAMERA.fy, WIDTH - 1 - CAMERA.cx, CAMERA.cy)
    if kind == "plane":
        expected = plane(camera, HEIGHT, WIDTH, (-0.4, -0.3, -0.8), 2.0)
    else:
        expected = sphere(camera, HEIGHT, WIDTH, (-0.2, 0.1, 3.0), 1.1)
    np.testing.assert_array_equal(labels["semantic"][0].numpy(), expected.label)
    np.testing.assert_allclose(labels["depth"][0, 0].numpy(), expected.depth, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(labels["normal"][0].permute(1, 2, 0).numpy(), expected.normal, atol=1e-5)
    assert torch.equal(images, tensors(render(kind, CAMERA))[0].flip(-1))


def test_inverse_depth_grows_with_the_scale() -> None:
    city = tasks(DATASETS["cityscapes7"])
    disparity = torch.full((1, 1, HEIGHT, WIDTH), 0.1)
    _, labels = apply_views(torch.rand(1, 3, HEIGHT, WIDTH), {"depth": disparity}, view(1.5), city)
    torch.testing.assert_close(labels["depth"], 1.5 * disparity)


def test_labels_are_never_mixed_and_undefined_stays_undefined() -> None:
    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.integers(-1, 13, (1, HEIGHT, WIDTH)))
    depth = torch.from_numpy(rng.choice([0.0, 1.0, 4.0], (1, 1, HEIGHT, WIDTH))).float()
    normal = (
        torch.nn.functional.one_hot(torch.from_numpy(rng.integers(0, 3, (1, HEIGHT, WIDTH))), 3)
        .permute(0, 3, 1, 2)
        .float()
    )
    found = apply_views(
        torch.rand(1, 3, HEIGHT, WIDTH), {"semantic": label, "depth": depth, "normal": normal}, view(1.2, 5, 5), TASKS
    )[1]
    assert set(found["semantic"].unique().tolist()) == set(range(-1, 13))
    assert found["depth"].unique().tolist() == pytest.approx([0, 1 / 1.2, 4 / 1.2])
    assert set(found["normal"].unique().tolist()) == {0, 1}


def test_each_image_of_a_batch_has_its_own_view_and_others_are_not_touched() -> None:
    scene = render("sphere", CAMERA)
    images, labels = tensors(scene)
    batch = torch.cat([images] * 3), {name: torch.cat([values] * 3) for name, values in labels.items()}
    kept = batch[0].clone()
    views = Views(np.array([1.0, 1.5, 1.0]), np.array([0, 7, 0]), np.array([0, 3, 0]), np.array([False, False, True]))
    seen, found = apply_views(*batch, views, TASKS)
    assert torch.equal(batch[0], kept)
    assert torch.equal(seen[0], images[0])
    torch.testing.assert_close(seen[1:2], apply_views(images, labels, view(1.5, 7, 3), TASKS)[0])
    alone = apply_views(images, labels, view(1.0, mirrored=True), TASKS)[1]
    assert all(torch.equal(found[name][2:], alone[name]) for name in found)


def test_windows_lie_within_the_image_and_every_draw_occurs() -> None:
    views = draw_views(4000, (HEIGHT, WIDTH), Augmentation((1.0, 1.2, 1.5), mirror=True), np.random.default_rng(0))
    assert set(views.scales) == {1.0, 1.2, 1.5}
    assert ((views.tops >= 0) & (views.tops + HEIGHT / views.scales <= HEIGHT + 1e-9)).all()
    assert ((views.lefts >= 0) & (views.lefts + WIDTH / views.scales <= WIDTH + 1e-9)).all()
    assert views.tops[views.scales == 1.5].max() == 32
    assert views.tops[views.scales == 1.0].max() == 0
    assert 0.45 < views.mirrored.mean() < 0.55


def test_a_scale_below_one_has_no_pixels_to_show() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Augmentation((0.5, 1.0))
