"""Decoding on all cores, in order and in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decathlon.data.problems import Kind
from mtan_core.decode import Pixels, UnreadableError, decode

CHUNK_IMAGES, CHUNK_BYTES = 64, 4 << 20
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


class Decoded(NamedTuple):
    """An image with its moments, or what is wrong with it."""

    job: Job
    image: Pixels | None
    moments: Moments | None
    kind: Kind | None = None
    detail: str = ""


class Boundary(NamedTuple):
    """Passes through `decode_all` in its place: everything before it has come out when it does."""

    name: str


def workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Read = Callable[[Job], "Decoded"]


def decode_all(jobs: Iterable[Job | Boundary], read: Read | None = None) -> Iterator[list[Decoded] | Boundary]:
    """Decode the jobs on as many threads as there are cores; results come in the order of the jobs.

    `read` decodes one (default: `read_annotated`).

    Threads suffice: the decoder holds no interpreter lock. They work on chunks, as handing over single images
    would cost as much as decoding them. At most twice as many chunks as threads are under way.
    """
    threads, read_chunk = workers(), partial(_read_chunk, read or read_annotated)
    with ThreadPoolExecutor(threads, "decode") as pool:
        under_way: deque[Future[list[Decoded]] | Boundary] = deque()
        try:
            for chunk in _chunks(jobs):
                under_way.append(chunk if isinstance(chunk, Boundary) else pool.submit(read_chunk, chunk))
                while len(under_way) > 2 * threads:
                    yield _result(under_way.popleft())
            while under_way:
                yield _result(under_way.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(pending: "Future[list[Decoded]] | Boundary") -> list[Decoded] | Boundary:
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


def _read_chunk(read: Read, jobs: list[Job]) -> list[Decoded]:
    return [read(job) for job in jobs]


def read_annotated(job: Job) -> Decoded:
    """An image as it is in its file, which must have the annotated size."""
    try:
        data = job.data if isinstance(job.data, bytes) else Path(job.data).read_bytes()
        image = decode(data)
    except FileNotFoundError:
        return Decoded(job, None, None, "missing image")
    except (UnreadableError, OSError) as problem:
        return Decoded(job, None, None, "unreadable image", str(problem))
    if image.shape[:2] != (job.height, job.width):
        found = f"annotated as {job.width}x{job.height}, found {image.shape[1]}x{image.shape[0]} (width x height)"
        return Decoded(job, None, None, "wrong size", found)
    return Decoded(job, image, moments(image))


def moments(image: Pixels) -> Moments:
    """The sums over an image's pixels."""
    height, width, _ = image.shape
    exact = np.float32 if height <= _EXACT_ROWS else np.float64  # the shorter type takes half the time
    rows = image.reshape(height, width * 3).astype(exact)  # rows first: sums along three channels alone are slow
    total = rows.sum(axis=0).reshape(width, 3).sum(axis=0, dtype=np.float64)
    np.square(rows, out=rows)
    return Moments(height * width, total, rows.sum(axis=0).reshape(width, 3).sum(axis=0, dtype=np.float64))
