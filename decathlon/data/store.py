"""The Arrow image store: one memory-mapped IPC file per domain and split, `STORE/<domain>/<split>.arrow`.

Columns: `image_id` int64, `label` int32 (null in test), `height` and `width` int32, `pixels` large_binary (uint8, HWC, RGB).
The schema's metadata holds one JSON document under `decathlon`: format version, the domain's spec, and how the split was made.
Rows lie in the order in which they were read; `StoredSplit` presents them in the order of their image ids.
`STORE/store.json` names the finished domains: a folder without it is no store, or one whose preparation was interrupted.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import fs as pafs

from decathlon.specs import DomainSpec, choose_domains
from mtan_core.errors import UserError, nearest

FORMAT = 1
SPLITS = ("train", "val", "test")
MARKER = "store.json"
METADATA_KEY = b"decathlon"
COLUMNS = (
    ("image_id", pa.int64()),
    ("label", pa.int32()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("pixels", pa.large_binary()),
)

Pixels = NDArray[np.uint8]
Ids = NDArray[np.int64]


class StoredSplit:
    """The images of one split, in the order of their ids, without a copy of any pixel.

    Where the file is local, `pixels` is its read-only memory map, and `offsets[i]` the place in it at which image i
    (`heights[i]` x `widths[i]` x 3 bytes, HWC, RGB) begins.
    """

    def __init__(self, buffer: pa.Buffer, where: str) -> None:
        """Raises UserError for a file that is cut off, of another format version, or none of ours."""
        try:
            with pa.ipc.open_file(buffer) as reader:
                self.metadata = read_metadata(reader.schema, where)
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (pa.ArrowInvalid, pa.ArrowSerializationError, OSError) as problem:
            raise UserError(f"Expected a whole image store file, found a damaged one: {where} ({problem}).") from None
        self.spec = DomainSpec.from_dict(self.metadata["spec"], where)
        self.split: str = self.metadata["split"]
        self.pixels: Pixels = np.frombuffer(buffer, np.uint8)
        ids = _column(batches, "image_id", np.int64)
        order = np.argsort(ids, kind="stable")
        self.image_ids: Ids = ids[order]
        labels = None if self.split == "test" else _column(batches, "label", np.int64)[order]
        self.labels: Ids | None = labels
        self.heights: NDArray[np.int32] = _column(batches, "height", np.int32)[order]
        self.widths: NDArray[np.int32] = _column(batches, "width", np.int32)[order]
        starts, lengths = _places(batches, buffer.address)
        self.offsets: Ids = starts[order]
        if not np.array_equal(lengths[order], self.heights.astype(np.int64) * self.widths * 3):
            raise UserError(f"Expected height x width x 3 bytes for every image, found others: {where}.")

    def __len__(self) -> int:
        return len(self.image_ids)

    def digest(self) -> str:
        """What identifies the split: a hash of its image ids and labels."""
        digest = hashlib.sha256(self.image_ids.tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()[:16]

    def image(self, index: int) -> Pixels:
        """Image `index` as a read-only view (height, width, 3)."""
        height, width = int(self.heights[index]), int(self.widths[index])
        start = int(self.offsets[index])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


class Store:
    """The finished domains of a store, in the order of their numbers; made by `open_store`."""

    def __init__(
        self,
        where: str,
        filesystem: pafs.FileSystem | None,
        path: str,
        splits: dict[str, list[str]],
        more: "dict[str, Store] | None" = None,
    ) -> None:
        self.where = where
        self._filesystem, self._path, self._splits = filesystem, path, splits
        self._more = more or {}  # domains that lie in another store
        self._opened: dict[tuple[str, str], StoredSplit] = {}

    @cached_property
    def specs(self) -> dict[str, DomainSpec]:
        """The spec of every domain, by name, in the order of the domains' numbers."""
        found = [
            DomainSpec.from_dict(self.metadata(domain, splits[0])["spec"], f"{self.where}/{domain}")
            for domain, splits in self._splits.items()
        ]
        return {spec.name: spec for spec in sorted(found, key=lambda spec: spec.number)}

    @property
    def domains(self) -> list[str]:
        return list(self.specs)

    def select(self, domains: str | Iterable[str] | None) -> "Store":
        """The same store with the wanted domains only (`a,b,c` or a list; None: all). Raises UserError for an absent one."""
        chosen = choose_domains(domains, self.domains, self.where)
        splits = {name: self._splits[name] for name in chosen}
        return Store(self.where, self._filesystem, self._path, splits, self._more)

    def with_more(self, other: "Store") -> "Store":
        """The same store with the domains of another one that it has not got itself."""
        more = {name: other for name in other.domains if name not in self._splits}
        splits = {**self._splits, **{name: other.splits(name) for name in more}}
        return Store(self.where, self._filesystem, self._path, splits, {**self._more, **more})

    def splits(self, domain: str) -> list[str]:
        """The splits of a domain, of train, val and test in this order."""
        if domain not in self._splits:
            raise UserError(f"{self.where} has no domain '{domain}'{nearest(domain, self._splits)}.")
        return list(self._splits[domain])

    def split(self, domain: str, split: str) -> StoredSplit:
        """The images of one split. Raises UserError where the store has not got it, or its file is damaged."""
        if split not in self.splits(domain):
            raise UserError(f"{domain} in {self.where} has no split '{split}'{nearest(split, self._splits[domain])}.")
        if domain in self._more:
            return self._more[domain].split(domain, split)
        if (domain, split) not in self._opened:
            buffer = self._map(f"{domain}/{split}.arrow")
            self._opened[domain, split] = StoredSplit(buffer, f"{self.where}/{domain}/{split}.arrow")
        return self._opened[domain, split]

    def metadata(self, domain: str, split: str) -> dict[str, Any]:
        """How a split was made: spec, source, counts of what was skipped, resplit seed, measured mean and std."""
        if domain in self._more:
            return self._more[domain].metadata(domain, split)
        name = f"{domain}/{split}.arrow"
        return _file_metadata(partial(self._open, name), f"{self.where}/{name}")

    def _open(self, name: str) -> pa.NativeFile:
        path = f"{self._path}/{name}"
        return pa.memory_map(path) if self._filesystem is None else self._filesystem.open_input_file(path)

    def _map(self, name: str) -> pa.Buffer:
        """A whole file as one memory map; a remote one is first copied to a nameless temporary file on this machine."""
        try:
            file = self._open(name)
            if self._filesystem is not None:
                with tempfile.NamedTemporaryFile(prefix="decathlon-", suffix=".arrow") as local:
                    with file:
                        shutil.copyfileobj(file, local, 1 << 22)
                    local.flush()
                    file = pa.memory_map(local.name)
            return file.read_buffer()
        except OSError as problem:
            raise UserError(
                f"Expected an image store file, found none that can be read: {self.where}/{name} ({problem})."
            ) from None


def open_store(where: str | Path) -> Store:
    """Open a store in a local folder or at any `pyarrow.fs` URI.

    Raises UserError for what is no store, a half-written one, and one of another format version.
    """
    name = str(where).rstrip("/") or "/"
    filesystem, path = _locate(name)
    marker = _marker(name, filesystem, path)
    if marker.get("format") != FORMAT:
        raise UserError(
            f"Expected a store of format {FORMAT}, found format {marker.get('format')}: {name}; run `mtan decathlon prepare` again."
        )
    domains = marker.get("domains")
    if not isinstance(domains, dict) or not domains or not all(_are_splits(splits) for splits in domains.values()):
        raise UserError(f"Expected a store's domains, each with its splits, found a damaged {MARKER}: {name}.")
    return Store(name, filesystem, path, domains)


def _are_splits(splits: Any) -> bool:
    return isinstance(splits, list) and bool(splits) and all(split in SPLITS for split in splits)


def file_metadata(path: Path) -> dict[str, Any]:
    """The metadata of one local file of a store. Raises UserError where it is missing, damaged or none of ours."""
    return _file_metadata(partial(pa.memory_map, str(path)), str(path))


def _file_metadata(opener: Callable[[], pa.NativeFile], where: str) -> dict[str, Any]:
    try:
        with opener() as file, pa.ipc.open_file(file) as reader:
            return read_metadata(reader.schema, where)
    except (pa.ArrowInvalid, pa.ArrowSerializationError, OSError) as problem:
        raise UserError(
            f"Expected a whole image store file, found a missing or damaged one: {where} ({problem})."
        ) from None


def read_metadata(schema: pa.Schema, where: str) -> dict[str, Any]:
    """The JSON document in a schema's metadata. Raises UserError where there is none, or one of another format version."""
    document = (schema.metadata or {}).get(METADATA_KEY)
    if document is None:
        raise UserError(f"Expected an image store file, found an Arrow file of something else: {where}.")
    try:
        metadata = json.loads(document)
    except (ValueError, RecursionError):
        metadata = None
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if version != FORMAT:
        raise UserError(f"Expected a store of format {FORMAT}, found format {version}: {where}; prepare it again.")
    if not isinstance(metadata.get("spec"), dict) or metadata.get("split") not in SPLITS:
        raise UserError(f"Expected a domain's spec and a split, found neither: {where}; prepare it again.")
    return dict(metadata)


def _locate(name: str) -> tuple[pafs.FileSystem | None, str]:
    if "://" not in name:
        return None, name
    try:
        filesystem, path = pafs.FileSystem.from_uri(name)
    except (pa.ArrowInvalid, OSError) as problem:
        raise UserError(f"Expected a folder or a URI that Arrow can open, found '{name}' ({problem}).") from None
    return (None, path) if isinstance(filesystem, pafs.LocalFileSystem) else (filesystem, path)


def _marker(name: str, filesystem: pafs.FileSystem | None, path: str) -> dict[str, Any]:
    """The content of `store.json`; tells a half-written store from a folder that is none."""
    filesystem = filesystem or pafs.LocalFileSystem()
    try:
        with filesystem.open_input_stream(f"{path}/{MARKER}") as file:
            document = json.loads(file.read())
            if isinstance(document, dict) and "format" in document:
                return document
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError):
        raise UserError(f"Expected an image store, found an unreadable {MARKER}: {name}.") from None
    if _has_splits(filesystem, path):
        raise UserError(
            f"Expected a finished store, found a half-written one: {name}; run the same `mtan decathlon prepare` again."
        )
    raise UserError(
        f"Expected an image store (a folder with {MARKER}, as `mtan decathlon prepare` makes it), found none: {name}."
    )


def _has_splits(filesystem: pafs.FileSystem, path: str) -> bool:
    """Whether a folder in this one holds a split. No deeper: what is named by mistake may be a whole disk."""
    inside = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    folders = [info.path for info in inside if info.type == pafs.FileType.Directory]
    files = filesystem.get_file_info([f"{folder}/{split}.arrow" for folder in folders for split in SPLITS])
    return any(info.type == pafs.FileType.File for info in files)


def _column(batches: list[pa.RecordBatch], name: str, kind: Any) -> NDArray[Any]:
    parts = [batch.column(name).to_numpy().astype(kind, copy=False) for batch in batches]
    return np.concatenate(parts) if parts else np.empty(0, kind)


def _places(batches: list[pa.RecordBatch], base: int) -> tuple[Ids, Ids]:
    """Start in the file and length in bytes of every image's pixels."""
    starts, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch in batches:
        column = batch.column("pixels")
        _, places, data = column.buffers()
        bounds = np.frombuffer(places, np.int64)[column.offset : column.offset + len(column) + 1]
        starts.append(bounds[:-1] + (data.address - base))
        lengths.append(np.diff(bounds))
    return np.concatenate(starts), np.concatenate(lengths)
