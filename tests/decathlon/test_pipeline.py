"""Blocks of decoded images hold what each file holds by itself, in the order of the jobs."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from decathlon.data import pipeline
from decathlon.data.pipeline import Block, Boundary, Job, decode_all, moments
from mtan_core.decode import decode
from tests.decathlon.images import encoded

KINDS = ("JPEG", "PNG", "cut off", "other size", "claims too much")


def job(row: int, split: str, kind: str, height: int, width: int) -> Job:
    generator = np.random.default_rng(row)
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    data = encoded(image, "PNG" if kind == "PNG" else "JPEG")
    if kind == "cut off":
        data = data[: len(data) // 2]
    if kind == "other size":
        height += 1
    if kind == "claims too much":
        height, width = 10**5, 10**5
    return Job("dtd", split, row, height, width, data)


def blocks_of(jobs: Sequence[Job | Boundary]) -> list[Block]:
    return [block for result in decode_all(jobs) if not isinstance(result, Boundary) for block in result]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("train", "val")), st.sampled_from(KINDS), st.integers(1, 40), st.sampled_from((3, 16, 21))
        ),
        max_size=150,
    )
)
def test_blocks_hold_what_each_file_holds(wanted: list[tuple[str, str, int, int]]) -> None:
    jobs = [job(row, *one) for row, one in enumerate(wanted)]
    told, taken = {}, {}
    for block in blocks_of(jobs):
        assert block.moments.count == sum(height * width for height, width in block.sizes)
        ends = np.cumsum([height * width * 3 for height, width in block.sizes])
        assert len(block.pixels) == (ends[-1] if len(ends) else 0)
        for row, size, end in zip(block.rows, block.sizes, ends, strict=True):
            taken[row] = block.split, block.pixels[end - size[0] * size[1] * 3 : end].reshape(*size, 3)
        told |= {row: kind for row, kind, _ in block.troubles}
        images = [taken[row][1].reshape(-1, 3).astype(np.float64) for row in block.rows] or [np.zeros((0, 3))]
        np.testing.assert_array_equal(block.moments.total, np.concatenate(images).sum(0))
        np.testing.assert_array_equal(block.moments.squares, np.square(np.concatenate(images)).sum(0))
    expected = {"cut off": "unreadable image", "other size": "wrong size", "claims too much": "wrong size"}
    assert told == {row: expected[kind] for row, (_, kind, *_) in enumerate(wanted) if kind in expected}
    assert list(taken) == [row for row, (_, kind, *_) in enumerate(wanted) if kind not in expected]
    for row, (split, image) in taken.items():
        assert split == jobs[row].split
        data = jobs[row].data
        assert isinstance(data, bytes)
        np.testing.assert_array_equal(image, decode(data))


def test_boundaries_come_after_what_stood_before_them() -> None:
    jobs = [job(row, "train", "JPEG", 8, 8) for row in range(200)]
    mixed: list[Job | Boundary] = [*jobs[:100], Boundary("first"), *jobs[100:], Boundary("second")]
    seen: list[int | str] = []
    for result in decode_all(mixed):
        seen += [result.name] if isinstance(result, Boundary) else [row for block in result for row in block.rows]
    assert seen == [*range(100), "first", *range(100, 200), "second"]


@pytest.mark.parametrize("height", [pipeline._EXACT_ROWS, pipeline._EXACT_ROWS + 1, 3 * pipeline._EXACT_ROWS])
def test_sums_of_white_images_are_exact(height: int) -> None:
    """The largest sums there can be, at and beyond the height at which single precision stops being exact."""
    found = moments(np.full(2 * height * 5 * 3, 255, np.uint8), [(height, 5)] * 2)
    assert found.count == 2 * height * 5
    assert found.total.tolist() == [255 * found.count] * 3
    assert found.squares.tolist() == [255**2 * found.count] * 3
