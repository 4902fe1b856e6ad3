"""What the network sees of a stored image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from decathlon.batches import DomainImages, View, views_of
from decathlon.specs import Fit, official_domains
from decathlon.views import (
    CENTRE,
    Augmentation,
    centre_boxes,
    change_colours,
    copy_windows,
    draw_colours,
    filter_weights,
    mirror,
    place_boxes,
    random_boxes,
    resample,
)
from tests.decathlon.images import Images, random_images, store_split

CPU = torch.device("cpu")
MIXED = [(72, 72), (72, 100), (144, 72), (72, 72), (81, 72)]


def stacked(images: Images) -> tuple[Tensor, np.ndarray, np.ndarray]:
    heights = np.array([len(image) for image in images])
    widths = np.array([image.shape[1] for image in images])
    batch = torch.zeros(len(images), int(heights.max()), int(widths.max()), 3, dtype=torch.uint8)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = torch.from_numpy(image)
    return batch, heights, widths


def interpolated(image: np.ndarray, size: int) -> Tensor:
    plane = torch.from_numpy(image).permute(2, 0, 1).float()[None]
    return F.interpolate(plane, (size, size), mode="bilinear", antialias=True)[0]


def domain_images(folder: Path, images: Images, fit: Fit, size: int, domain: str = "dtd") -> DomainImages:
    split = store_split(folder, images, domain)
    return DomainImages(split, fit, size, CPU, split.spec)


def unnormalised(seen: Tensor, source: DomainImages) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (source.spec.mean, source.spec.std))
    return seen * std + mean


@pytest.mark.parametrize("size", [16, 40, 72, 96, 150])
def test_whole_images_are_resized_as_torch_does_it(size: int) -> None:
    images = random_images(MIXED)
    batch, heights, widths = stacked(images)
    seen = resample(batch, heights, widths, centre_boxes(heights, widths, "squash"), size)
    for row, image in zip(seen, images, strict=True):
        assert_close(row, interpolated(image, size), rtol=0, atol=2e-2)  # of 255


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4), st.integers(1, 50))
def test_resizing_equals_torch_for_any_sizes(sizes: list[tuple[int, int]], size: int) -> None:
    images = random_images(sizes)
    batch, heights, widths = stacked(images)
    seen = resample(batch, heights, widths, centre_boxes(heights, widths, "squash"), size)
    for row, image in zip(seen, images, strict=True):
        assert_close(row, interpolated(image, size), rtol=0, atol=2e-2)


def test_a_box_of_whole_pixels_is_resized_like_the_image_cut_out_beforehand_up_to_its_rim() -> None:
    """At its rim a box sees its neighbours, which a cut-out image has not."""
    (image,) = random_images([(90, 80)])
    batch, heights, widths = stacked([image])
    seen = resample(batch, heights, widths, np.array([[10.0, 5.0, 60.0, 60.0]]), 20)
    assert_close(seen[0, :, 1:-1, 1:-1], interpolated(image[10:70, 5:65], 20)[:, 1:-1, 1:-1], rtol=0, atol=2e-2)


@given(start=st.floats(-20, 60), length=st.floats(1, 120), limit=st.integers(1, 100), size=st.integers(1, 64))
def test_filter_weights_are_shares_of_pixels_inside_the_image(
    start: float, length: float, limit: int, size: int
) -> None:
    weights = filter_weights(np.array([start]), np.array([length]), np.array([limit]), size, 128)[0].numpy()
    assert weights.shape == (size, 128)
    assert np.isfinite(weights).all() and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert not weights[:, limit:].any()


@given(value=st.integers(0, 255), size=st.integers(1, 60), top=st.floats(-10, 30), side=st.floats(2, 50))
@settings(deadline=None)
def test_an_even_image_stays_even(value: int, size: int, top: float, side: float) -> None:
    images = [np.full((30, 44, 3), value, np.uint8), np.full((20, 20, 3), value, np.uint8)]
    batch, heights, widths = stacked(images)
    boxes = np.array([[top, top, side, side]] * 2)
    assert_close(
        resample(batch, heights, widths, boxes, size),
        torch.full((2, 3, size, size), float(value)),
        rtol=1e-5,
        atol=1e-2,
    )


def test_mirrored_boxes_are_the_boxes_turned() -> None:
    batch, heights, widths = stacked(random_images(MIXED))
    boxes = place_boxes(heights, widths, "crop", np.full((5, 2), 0.3))
    turned = np.array([True, False, True, False, True])
    straight, seen = (resample(batch, heights, widths, boxes, 33, flags) for flags in (None, turned))
    for row, flag in enumerate(turned):
        assert_close(seen[row], straight[row].flip(2) if flag else straight[row])


def test_window_copies_equal_slices(tmp_path: Path) -> None:
    images = random_images(MIXED)
    split = store_split(tmp_path, images)
    tops, lefts = [0, 0, 41, 0, 9], [0, 28, 0, 0, 0]
    boxes = np.array([[top, left, 72, 72] for top, left in zip(tops, lefts, strict=True)], dtype=np.float64)
    windows = copy_windows(split.pixels, split.offsets, split.heights, split.widths, boxes, 72)
    for window, image, top, left in zip(windows, images, tops, lefts, strict=True):
        np.testing.assert_array_equal(window.numpy(), image[top : top + 72, left : left + 72])


@pytest.mark.parametrize("size", [72, 40])
def test_crop_takes_the_middle(tmp_path: Path, size: int) -> None:
    images = random_images([(72, 100), (144, 72), (72, 72)])
    source = domain_images(tmp_path, images, "crop", size)
    seen = unnormalised(source.evaluation(np.arange(3)), source)
    for row, middle in enumerate((images[0][:, 14:86], images[1][36:108], images[2])):
        expected = torch.from_numpy(middle).permute(2, 0, 1).float() if size == 72 else interpolated(middle, size)
        inner = slice(2, -2) if size != 72 else slice(None)
        assert_close(seen[row][:, inner, inner], expected[:, inner, inner], rtol=0, atol=3e-2)


@pytest.mark.parametrize("size", [32, 72, 100])
@pytest.mark.parametrize("mirrored", [False, True])
def test_squashed_images_are_those_of_pillow(tmp_path: Path, size: int, mirrored: bool) -> None:
    images = random_images([*MIXED, (72, 100)])
    source = domain_images(tmp_path, images, "squash", size)
    seen = unnormalised(source.evaluation(np.arange(len(images)), View(mirrored=mirrored)), source)
    for row, image in zip(seen, images, strict=True):
        squashed = np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
        expected = squashed[:, ::-1] if mirrored else squashed
        assert_close(row.permute(1, 2, 0), torch.from_numpy(expected.copy()).float(), rtol=0, atol=1.01)


def test_squash_keeps_the_whole_pedestrian(tmp_path: Path) -> None:
    assert official_domains()["daimlerpedcls"].fit == "squash"
    image = random_images([(144, 72)])[0]
    image[:20], image[-20:] = 250, 5  # head and feet, which a crop would lose
    source = domain_images(tmp_path, [image], official_domains()["daimlerpedcls"].fit, 72, "daimlerpedcls")
    seen = unnormalised(source.evaluation(np.array([0])), source)[0]
    assert_close(seen, interpolated(image, 72), rtol=0, atol=0.6)  # rounded to whole values
    assert_close(seen[:, :8], torch.full((3, 8, 72), 250.0), rtol=0, atol=0.1)
    assert_close(seen[:, -8:], torch.full((3, 8, 72), 5.0), rtol=0, atol=0.1)


@pytest.mark.parametrize(("domain", "allowed"), [("svhn", False), ("gtsrb", False), ("omniglot", False), ("dtd", True)])
@pytest.mark.parametrize("zoom", [1.0, 0.8])
def test_images_are_mirrored_only_where_the_spec_allows(
    tmp_path: Path, domain: str, allowed: bool, zoom: float
) -> None:
    """Images get brighter from left to right; a mirrored one gets darker."""
    ramp = np.broadcast_to(np.arange(72, dtype=np.uint8)[None, :, None] * 3, (72, 72, 3)).copy()
    source = domain_images(tmp_path, [ramp] * 40, "crop", 72, domain)
    seen = source.training(source.draw(np.arange(40), Augmentation(zoom=zoom), np.random.default_rng(0)))
    darker = seen[:, 0, 36, 5] > seen[:, 0, 36, -5]
    assert bool(darker.any()) == allowed
    assert not bool(darker.all())
    unmirrored = source.training(
        source.draw(np.arange(40), Augmentation(mirror=False, zoom=zoom), np.random.default_rng(0))
    )
    assert not bool((unmirrored[:, 0, 36, 5] > unmirrored[:, 0, 36, -5]).any())


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("sizes", [MIXED, [(72, 72)] * 5, [(72, 72 + 9 * i) for i in range(5)]])
@pytest.mark.parametrize("size", [72, 40])
def test_evaluation_is_not_random_and_does_not_depend_on_the_batch(
    tmp_path: Path, fit: Fit, sizes: list[tuple[int, int]], size: int
) -> None:
    source = domain_images(tmp_path, random_images(sizes), fit, size)
    whole = source.evaluation(np.arange(5))
    assert torch.equal(whole, source.evaluation(np.arange(5)))
    assert_close(torch.cat([source.evaluation(np.array([place])) for place in range(5)]), whole, rtol=0, atol=1e-5)
    assert_close(source.evaluation(np.array([4, 0, 2])), whole[[4, 0, 2]], rtol=0, atol=1e-5)
    assert whole.shape == (5, 3, size, size) and whole.is_contiguous(memory_format=torch.channels_last)


def test_normalised_by_the_specs_mean_and_std(tmp_path: Path) -> None:
    images = random_images([(72, 72)] * 2)
    source = domain_images(tmp_path, images, "crop", 72)
    mean, std = np.array(source.spec.mean), np.array(source.spec.std)
    expected = ((images[1] / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_allclose(source.evaluation(np.array([1]))[0].numpy(), expected, rtol=0, atol=1e-5)


@given(
    sizes=st.lists(st.tuples(st.integers(8, 200), st.integers(8, 200)), min_size=1, max_size=5),
    fit=st.sampled_from(["crop", "squash"]),
    zoom=st.floats(0.2, 1),
    shift=st.floats(0, 0.5),
    seed=st.integers(0, 1000),
)
def test_random_boxes_stay_within_bounds(
    sizes: list[tuple[int, int]], fit: Fit, zoom: float, shift: float, seed: int
) -> None:
    heights, widths = (np.array(side) for side in zip(*sizes, strict=True))
    boxes = random_boxes(heights, widths, fit, Augmentation(zoom=zoom, shift=shift), np.random.default_rng(seed))
    top, left, tall, wide = boxes.T
    limits = (heights, widths) if fit == "squash" else (np.minimum(heights, widths),) * 2
    for start, side, limit, edge in zip((top, left), (tall, wide), limits, (heights, widths), strict=True):
        assert (side <= limit + 1e-9).all() and (side >= zoom * limit - 1e-9).all()
        assert (start >= -shift * side - 1e-9).all() and (start + side <= edge + shift * side + 1e-9).all()


@given(where=st.floats(0, 1), height=st.integers(10, 90), width=st.integers(10, 90))
def test_placed_crops_are_squares_inside_the_image(where: float, height: int, width: int) -> None:
    ((top, left, tall, wide),) = place_boxes(np.array([height]), np.array([width]), "crop", np.array([[where, where]]))
    assert tall == wide == min(height, width)
    assert 0 <= top <= height - tall + 1e-9 and 0 <= left <= width - wide + 1e-9


def test_without_crop_training_sees_the_middle(tmp_path: Path) -> None:
    source = domain_images(tmp_path, random_images(MIXED), "crop", 72)
    seen = source.training(source.draw(np.arange(5), CENTRE, np.random.default_rng(0)))
    assert torch.equal(seen, source.evaluation(np.arange(5)))


def test_colour_changes_are_linear_per_image() -> None:
    images = torch.randn(6, 3, 8, 8)
    changed = change_colours(
        images.clone(), draw_colours(6, Augmentation(contrast=0.3, brightness=0.2), np.random.default_rng(0))
    )
    for before, after in zip(images, changed, strict=True):
        factor = (after - after.mean()).norm() / (before - before.mean()).norm()
        assert 0.7 <= factor <= 1.3
        offset = after - factor * before
        assert_close(offset, offset.mean().expand_as(offset), rtol=0, atol=1e-5)
        assert abs(offset.mean()) <= 0.2 + 1e-6
    assert len({round(float(row.std()), 6) for row in changed}) == 6


def test_mirror_turns_the_chosen_images_only() -> None:
    images = torch.from_numpy(np.stack(random_images([(9, 9)] * 3)))
    seen = mirror(images.clone(), np.array([False, True, False]))
    assert torch.equal(seen[1], images[1].flip(1))
    assert torch.equal(seen[[0, 2]], images[[0, 2]])


def test_views_are_crops_where_images_are_longer_and_mirrors_where_allowed(tmp_path: Path) -> None:
    square, longer = random_images([(72, 72)] * 2), random_images([(72, 72), (72, 100)])
    views = {
        (domain, fit, name): views_of(domain_images(tmp_path / f"{domain}-{fit}-{name}", images, fit, 72, domain))
        for domain in ("dtd", "svhn")
        for fit in ("crop", "squash")
        for name, images in (("square", square), ("longer", longer))
    }
    assert len(views["dtd", "crop", "longer"]) == 6
    assert len(views["svhn", "crop", "longer"]) == 3 and not any(v.mirrored for v in views["svhn", "crop", "longer"])
    assert len(views["dtd", "squash", "longer"]) == len(views["dtd", "crop", "square"]) == 2
    assert views["svhn", "squash", "longer"] == views["svhn", "crop", "square"] == [View(0.5, False)]


def test_a_view_is_the_crop_it_names(tmp_path: Path) -> None:
    images = random_images([(72, 100), (72, 72)])
    source = domain_images(tmp_path, images, "crop", 72)
    for place, left in ((0.0, 0), (0.5, 14), (1.0, 28)):
        for mirrored in (False, True):
            seen = unnormalised(source.evaluation(np.array([0]), View(place, mirrored)), source)[0]
            window = torch.from_numpy(images[0][:, left : left + 72].copy()).permute(2, 0, 1).float()
            assert_close(seen, window.flip(2) if mirrored else window, rtol=0, atol=1e-2)
