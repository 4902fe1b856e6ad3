"""What a submission is compared with: the annotation files of a split, labelled or stripped, from a folder or an archive."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from decathlon.results import decode_json_text
from decathlon.specs import IDS_PER_DOMAIN, choose_domains, official_domains
from mtan_core.errors import UserError

Split = Literal["test", "val"]
Ids = NDArray[np.int64]
# File name endings of a split, the labelled one first.
_ENDINGS: dict[Split, tuple[str, ...]] = {"test": ("_test.json", "_test_stripped.json"), "val": ("_val.json",)}


@dataclass(frozen=True)
class Answers:
    """The images of one domain's split and, in a labelled file, their categories."""

    domain: str
    split: Split
    where: str  # the file, for sentences about it
    image_ids: Ids  # ascending, each once
    labels: Ids | None  # category ids, one per image; None: stripped
    category_ids: Ids
    description: str

    @property
    def number(self) -> int:
        """The domain's number d in its ids."""
        return int(self.category_ids[0]) // IDS_PER_DOMAIN

    @property
    def is_miniature(self) -> bool:
        return "miniature" in self.description.lower()


def read_answers(source: Path, split: Split, domains: str | Sequence[str] | None = None) -> list[Answers]:
    """The answers of a split that a folder or zip archive holds, official domains first; empty where it has no such file.

    `domains` (a list or "a,b"; None: all there are) chooses; the files of the others are not read.
    Raises UserError for a broken or inconsistent file, and for a chosen domain that is not there.
    """
    with _opened(source) as files:
        found = _files_of(files, split)
        chosen = choose_domains(domains, list(found), f"the {split} split in {source}") if found else []
        return [_parse(name, split, files.read(found[name]), f"{source}/{found[name]}") for name in chosen]


class _Files(Protocol):
    """A flat set of named files."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class _Folder:
    path: Path

    def names(self) -> list[str]:
        return [child.name for child in self.path.iterdir()]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


@dataclass(frozen=True)
class _Archive:
    archive: zipfile.ZipFile

    def names(self) -> list[str]:
        return [name for name in self.archive.namelist() if not name.startswith("__MACOSX/")]

    def read(self, name: str) -> bytes:
        return self.archive.read(name)


@contextmanager
def _opened(source: Path) -> Iterator[_Files]:
    if source.is_dir():
        yield _Folder(source)
        return
    try:
        with zipfile.ZipFile(source) as archive:
            yield _Archive(archive)
    except zipfile.BadZipFile as problem:
        raise UserError(f"{source}: expected a folder or a zip archive of annotation files: {problem}.") from None


def _files_of(files: _Files, split: Split) -> dict[str, str]:
    """File name by domain, the official domains first in their order, the labelled file before the stripped one."""
    found: dict[str, str] = {}
    for ending in _ENDINGS[split]:
        for name in sorted(files.names()):
            base = PurePosixPath(name).name
            if base.endswith(ending) and not base.startswith("."):
                found.setdefault(base.removesuffix(ending), name)
    official = official_domains()
    order = sorted(found, key=lambda name: (official[name].number if name in official else 10**6, name))
    return {name: found[name] for name in order}


def _parse(domain: str, split: Split, data: bytes, where: str) -> Answers:
    """One annotation file; what it must be for a submission to be compared with it is checked here."""
    document = _document(data, where)
    categories = _column(document, "categories", "id", where)
    images = _column(document, "images", "id", where)
    for name, ids in (("categories", categories), ("images", images)):
        if not len(ids):
            raise UserError(f"{where}: expected at least one entry in '{name}', found none.")
    ordered = np.sort(images)
    for what, ids in (("category", np.sort(categories)), ("image", ordered)):
        twice = ids[1:][ids[1:] == ids[:-1]]
        if len(twice):
            raise UserError(f"{where}: expected each {what} id once, found {twice[0]} more than once.")
    labels = _labels(document, ordered, categories, where) if document.get("annotations") else None
    info = document.get("info")
    description = str(info.get("description", "")) if isinstance(info, dict) else ""
    return Answers(domain, split, where, ordered, labels, categories, description)


def _document(data: bytes, where: str) -> dict[str, Any]:
    text = decode_json_text(data, where)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise UserError(f"{where}: cannot be read as JSON: {problem}.") from None
    if not isinstance(document, dict):
        raise UserError(
            f"{where}: expected an object with 'images' and 'categories', found a {type(document).__name__}."
        )
    return document


def _column(document: dict[str, Any], table: str, key: str, where: str) -> Ids:
    """The integers under `key` of all entries of a table of the document."""
    rows = document.get(table)
    if not isinstance(rows, list):
        found = f"{rows!r:.40}" if table in document else "no such key"
        raise UserError(f"{where}: expected a list under '{table}', found {found}.")
    try:
        values = [row[key] for row in rows]
        if all(type(value) is int for value in values):
            return np.array(values, dtype=np.int64)
    except (KeyError, TypeError, OverflowError):
        pass
    bad = next(place for place, row in enumerate(rows, start=1) if not _has_integer(row, key))
    raise UserError(f"{where}: '{table}', entry {bad}: expected an integer under '{key}'.")


def _has_integer(row: Any, key: str) -> bool:
    return isinstance(row, dict) and type(row.get(key)) is int and -(2**63) <= row[key] < 2**63


def _labels(document: dict[str, Any], images: Ids, categories: Ids, where: str) -> Ids:
    """The category id of each of the (ascending) `images`; every image must have exactly one, out of the list."""
    annotated = _column(document, "annotations", "image_id", where)
    labels = _column(document, "annotations", "category_id", where)
    order = np.argsort(annotated, kind="stable")
    if not np.array_equal(annotated[order], images):
        ids, counts = np.unique(annotated, return_counts=True)
        problems = {
            "images without an annotation": np.setdiff1d(images, ids),
            "annotations without an image": np.setdiff1d(ids, images),
            "images with several annotations": ids[counts > 1],
        }
        told = "; ".join(f"{name}: {listed(bad)}" for name, bad in problems.items() if len(bad))
        raise UserError(f"{where}: expected one annotation per image, found {told}.")
    unknown = np.setdiff1d(labels, categories)
    if len(unknown):
        raise UserError(f"{where}: expected category ids of its own 'categories', found {listed(unknown)}.")
    return labels[order]


def listed(items: Sequence[object] | Ids, most: int = 10) -> str:
    """The first of some ids and, where there are more, how many in all."""
    shown = ", ".join(str(item) for item in items[:most])
    return f"{shown}, ... ({len(items):,} in all)" if len(items) > most else shown
