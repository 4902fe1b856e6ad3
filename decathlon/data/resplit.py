"""A new division of train and val, where the official val is no proxy for test."""

import numpy as np
from numpy.typing import NDArray

from decathlon.data.official import SplitListing


def resplit(train: SplitListing, val: SplitListing, seed: int, number: int) -> tuple[SplitListing, SplitListing]:
    """Divide train and val together anew, at random by `seed` and the domain's number, in the same proportion in every class.

    The two parts keep their sizes (a class of one image goes to train, which can make val smaller where there are many such).
    """
    joined = SplitListing(
        np.concatenate([train.image_ids, val.image_ids]),
        np.concatenate([train.labels, val.labels]),
        np.concatenate([train.heights, val.heights]),
        np.concatenate([train.widths, val.widths]),
        [*train.files, *val.files],
    )
    return divide(joined, len(val), seed, number)


def divide(rows: SplitListing, size: int, seed: int, number: int) -> tuple[SplitListing, SplitListing]:
    """Train and `size` images of val out of labelled images, at random, in the same proportion in every class."""
    generator = np.random.default_rng([seed, number])
    chosen = np.zeros(len(rows), bool)
    for label, quota in enumerate(_quotas(np.bincount(rows.labels), size)):
        chosen[generator.permutation(np.flatnonzero(rows.labels == label))[:quota]] = True
    return rows.take(np.flatnonzero(~chosen)), rows.take(np.flatnonzero(chosen))


def _quotas(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """How many of each class's images go to val: proportional, rounded by largest remainder, at least one left in train."""
    exact = counts * (size / max(counts.sum(), 1))
    room = np.maximum(counts - 1, 0)
    quotas = np.minimum(np.floor(exact).astype(np.int64), room)
    order = np.argsort(-(exact - quotas), kind="stable")
    while quotas.sum() < min(size, room.sum()):
        open_classes = order[quotas[order] < room[order]]
        quotas[open_classes[: size - quotas.sum()]] += 1
    return quotas
