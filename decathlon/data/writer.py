"""Writing one file of the image store in bounded memory, with metadata that is only known at the end."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from decathlon.data.store import COLUMNS, METADATA_KEY

BATCH_IMAGES, BATCH_BYTES = 512, 8 << 20
_SPARE = 512  # bytes kept free for what the final metadata has more than the first


class SplitWriter:
    """Appends decoded images to `path`, a record batch at a time.

    An Arrow file begins with its schema, yet measured statistics and counts are known only after the last image: the
    metadata is first written as blanks of a fixed length, which `close` overwrites, at the head and in the footer.
    """

    def __init__(self, path: Path, metadata: dict[str, Any]) -> None:
        """`metadata` is a first version of what `close` will be given; the last may be longer by a few hundred bytes."""
        self.path = path
        self._blank = b" " * (len(json.dumps(metadata)) + _SPARE)
        self._schema = pa.schema(COLUMNS, metadata={METADATA_KEY: self._blank})
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)
        self._columns: list[tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]] = []  # ids, labels, sizes
        self._images = 0
        self._buffer = np.empty(
            BATCH_BYTES, np.uint8
        )  # kept from batch to batch: fresh memory costs more than the copy
        self._bytes = 0

    def append(
        self,
        image_ids: NDArray[np.int64],
        labels: NDArray[np.int32] | None,
        sizes: Sequence[tuple[int, int]],
        pixels: NDArray[np.uint8],
    ) -> None:
        """Add images of these heights and widths, whose pixels (height, width, 3) lie one after the other; no labels in test."""
        full = self._images + len(image_ids) > BATCH_IMAGES or self._bytes + len(pixels) > len(self._buffer)
        if self._images and full:
            self._flush()
        if len(pixels) > len(self._buffer):
            self._buffer = np.empty(len(pixels), np.uint8)
        self._buffer[self._bytes : self._bytes + len(pixels)] = pixels
        self._columns.append((image_ids, labels, np.array(sizes, np.int32)))
        self._images += len(image_ids)
        self._bytes += len(pixels)

    def close(self, metadata: dict[str, Any]) -> None:
        """Write the last rows and the final metadata."""
        self._flush()
        self._writer.close()
        self._sink.close()
        document = json.dumps(metadata).encode()
        if len(document) > len(self._blank):
            raise ValueError(f"{len(document)} bytes of metadata do not fit the {len(self._blank)} kept for them")
        _overwrite(self.path, self._blank, document.ljust(len(self._blank)))

    def abort(self) -> None:
        """Give up: the file is removed."""
        self._sink.close()
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._columns:
            return
        ids, labels, sizes = zip(*self._columns, strict=True)
        heights, widths = np.concatenate(sizes).T
        bounds = np.zeros(self._images + 1, np.int64)
        np.cumsum(heights.astype(np.int64) * widths * 3, out=bounds[1:])
        columns = [
            _column(np.concatenate(ids), pa.int64()),
            pa.nulls(self._images, pa.int32()) if labels[0] is None else _column(np.concatenate(labels), pa.int32()),
            _column(heights, pa.int32()),
            _column(widths, pa.int32()),
            pa.LargeBinaryArray.from_buffers(
                pa.large_binary(),
                self._images,
                [None, pa.py_buffer(bounds), pa.py_buffer(self._buffer[: self._bytes])],
            ),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._columns, self._images, self._bytes = [], 0, 0


def _column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """`pa.array` would load pandas first, to see whether it was given something of it."""
    buffer = pa.py_buffer(np.ascontiguousarray(values, kind.to_pandas_dtype()))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def _overwrite(path: Path, blank: bytes, document: bytes) -> None:
    """Put `document` in the place of the blanks in the schema at the file's head and in that of its footer."""
    reach = len(blank) + (1 << 16)  # the schema and the key-value pairs around the blanks take far less than 64 KiB
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(reach).index(blank)
        begin = _footer(file, size)
        file.seek(begin)
        foot = begin + file.read(size - begin).index(blank)
        for place in (head, foot):
            file.seek(place)
            file.write(document)


def _footer(file: Any, size: int) -> int:
    """Where an IPC file's footer begins: its length stands in four bytes before the closing magic `ARROW1`."""
    file.seek(size - 10)
    return size - 10 - int.from_bytes(file.read(4), "little")
