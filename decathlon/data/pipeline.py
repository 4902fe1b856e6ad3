"""Decoding on all cores, in order and in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decathlon.data.problems import Kind
from mtan_core.decode import Pixels, UnreadableError, decode

CHUNK_IMAGES, CHUNK_BYTES = 64, 4 << 20
SUM_BYTES = 1 << 18  # of images that are summed at once: their values still fit a cache
_EXACT_ROWS = 2**24 // 255**2  # so many squares of bytes add up exactly in float32


class Job(NamedTuple):
    """An image to decode: where it belongs, its annotated size, and its bytes or the file that has them."""

    domain: str
    split: str
    row: int
    height: int
    width: int
    data: bytes | str


@dataclass
class Moments:
    """Sums over pixels, per channel, exact in float64 (integers below 2^53), so that their order does not matter."""

    count: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __iadd__(self, other: "Moments") -> "Moments":
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        return self


class Trouble(NamedTuple):
    """What is wrong with the image of a row."""

    row: int
    kind: Kind
    detail: str


@dataclass(frozen=True)
class Block:
    """Images of one split that came one after the other, decoded, without those that something is wrong with."""

    domain: str
    split: str
    rows: list[int]
    sizes: list[tuple[int, int]]  # height and width
    pixels: NDArray[np.uint8]  # of all, one image after the other
    moments: Moments
    troubles: list[Trouble]

    def __len__(self) -> int:
        return len(self.rows) + len(self.troubles)


class Boundary(NamedTuple):
    """Passes through `decode_all` in its place: everything before it has come out when it does."""

    name: str


def workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class UnusableError(ValueError):
    """An image that cannot be taken; `args` are the kind of its problem and the detail."""


# From a job, and room for an image of its annotated size (None: too much to keep), to the image, which need not lie there.
Read = Callable[[Job, NDArray[np.uint8] | None], Pixels]  # raises UnusableError


def decode_all(jobs: Iterable[Job | Boundary], read: Read | None = None) -> Iterator[list[Block] | Boundary]:
    """Decode the jobs on as many threads as there are cores; results come in the order of the jobs.

    `read` decodes one (default: `read_annotated`).

    Threads suffice: the decoder holds no interpreter lock. They work on chunks, as handing over single images would cost as
    much as decoding them, and so would every step in Python that the threads take for each of them: they wait for each other's.
    At most twice as many chunks as threads are under way.
    """
    threads, read_chunk = workers(), partial(_read_chunk, read or read_annotated)
    with ThreadPoolExecutor(threads, "decode") as pool:
        under_way: deque[Future[list[Block]] | Boundary] = deque()
        try:
            for chunk in _chunks(jobs):
                under_way.append(chunk if isinstance(chunk, Boundary) else pool.submit(read_chunk, chunk))
                while len(under_way) > 2 * threads:
                    yield _result(under_way.popleft())
            while under_way:
                yield _result(under_way.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(pending: "Future[list[Block]] | Boundary") -> list[Block] | Boundary:
    return pending if isinstance(pending, Boundary) else pending.result()


def _chunks(jobs: Iterable[Job | Boundary]) -> Iterator[list[Job] | Boundary]:
    chunk: list[Job] = []
    size = 0
    for job in jobs:
        is_boundary = isinstance(job, Boundary)
        if chunk and (is_boundary or len(chunk) == CHUNK_IMAGES or size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        if isinstance(job, Boundary):
            yield job
        else:
            chunk.append(job)
            size += job.height * job.width * 3 + (len(job.data) if isinstance(job.data, bytes) else 0)
    if chunk:
        yield chunk


def _read_chunk(read: Read, jobs: list[Job]) -> list[Block]:
    return [_read_block(read, list(some)) for _, some in groupby(jobs, lambda job: (job.domain, job.split))]


def _read_block(read: Read, jobs: list[Job]) -> Block:
    """The images of jobs of one split. They are decoded into one stretch of memory, or else put into one."""
    sizes = [job.height * job.width * 3 for job in jobs]
    room = np.empty(sum(sizes), np.uint8) if sum(sizes) <= 2 * CHUNK_BYTES else None  # an annotation may claim anything
    images: list[Pixels] = []
    rows, troubles, begin, in_place = [], [], 0, room is not None
    for job, size in zip(jobs, sizes, strict=True):
        place = None if room is None else room[begin : begin + size]
        try:
            image = read(job, place)
        except UnusableError as problem:
            troubles.append(Trouble(job.row, *problem.args))
            continue
        images.append(image)
        rows.append(job.row)
        begin += size
        in_place = in_place and image.base is place
    pixels = room[:begin] if in_place and room is not None else _joined(images)
    shapes = [(image.shape[0], image.shape[1]) for image in images]
    return Block(jobs[0].domain, jobs[0].split, rows, shapes, pixels, moments(pixels, shapes), troubles)


def _joined(images: Sequence[Pixels]) -> NDArray[np.uint8]:
    return np.concatenate([image.ravel() for image in images]) if images else np.empty(0, np.uint8)


def read_annotated(job: Job, room: NDArray[np.uint8] | None) -> Pixels:
    """An image as it is in its file, which must have the annotated size."""
    try:
        data = job.data if isinstance(job.data, bytes) else _content(job.data)
        image = decode(data, room)
    except FileNotFoundError:
        raise UnusableError("missing image", "") from None
    except (UnreadableError, OSError) as problem:
        raise UnusableError("unreadable image", str(problem)) from None
    if image.shape[:2] != (job.height, job.width):
        found = f"annotated as {job.width}x{job.height}, found {image.shape[1]}x{image.shape[0]} (width x height)"
        raise UnusableError("wrong size", found)
    return image


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # a buffer would be in the way: a tenth of the time of a small image
        return file.read()


def moments(pixels: NDArray[np.uint8], sizes: Sequence[tuple[int, int]]) -> Moments:
    """The sums over images that lie one after the other."""
    found, begin = Moments(0, np.zeros(3), np.zeros(3)), 0
    for (height, width), same in groupby(sizes):
        size, left = height * width * 3, len(list(same))
        while left:
            count = min(left, max(1, SUM_BYTES // size))
            some = pixels[begin : begin + count * size]
            found += _moments(some.reshape(count, height, width * 3))
            begin, left = begin + len(some), left - count
    return found


def _moments(images: NDArray[np.uint8]) -> Moments:
    """Of (images, height, width * 3)."""
    count, height, row = images.shape
    exact = np.float32 if height <= _EXACT_ROWS else np.float64  # the shorter type takes half the time
    values = images.astype(exact)  # rows first: sums along three channels alone are slow
    total = values.sum(axis=1).reshape(-1, 3).sum(axis=0, dtype=np.float64)
    np.square(values, out=values)
    squares = values.sum(axis=1).reshape(-1, 3).sum(axis=0, dtype=np.float64)
    return Moments(count * height * row // 3, total, squares)
