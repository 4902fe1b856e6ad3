"""Images of a user's own, before they are read: a folder per class, or a CSV of paths and labels."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from decathlon.data.sources import IMAGES
from decathlon.data.store import SPLITS
from mtan_core.errors import UserError, nearest

ENDINGS = (*IMAGES, ".tif", ".tiff", ".ppm", ".pgm")


class Entry(NamedTuple):
    """One image file; `label` is the name of its class, None in test."""

    path: Path
    label: str | None
    split: str


def list_images(source: Path) -> list[Entry]:
    """The images of a CSV (`path`, `label` and perhaps `split`) or of a folder of class folders.

    A folder may hold `train`, and beside it `val` and `test`, each with class folders (test: or loose files).
    Raises UserError for anything else, for files that are not there, and for classes that nothing can be learnt of.
    """
    entries = _read_csv(source) if source.suffix.lower() == ".csv" else _read_folder(source)
    classes = {entry.label for entry in entries if entry.split == "train"}
    if len(classes) < 2:
        found = f"one ('{classes.pop()}')" if classes else "none in train"
        raise UserError(f"{source}: expected images of at least two classes, found {found}.")
    strange = next((entry for entry in entries if entry.split == "val" and entry.label not in classes), None)
    if strange:
        raise UserError(f"{source}: expected classes that train has, found '{strange.label}' in val: {strange.path}.")
    return entries


def _read_folder(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UserError(f"--images: expected a folder of class folders or a .csv file, found {found}: {folder}.")
    inner = _folders(folder)
    if "train" in {path.name for path in inner} <= set(SPLITS) and _folders(folder / "train"):
        return [entry for split in inner for entry in _read_split(split, split.name)]
    return _read_split(folder, "train")


def _read_split(folder: Path, split: str) -> list[Entry]:
    classes = _folders(folder)
    if split == "test":
        return [Entry(path, None, split) for path in _files(folder)]
    if not classes:
        loose = sum(1 for _ in _files(folder))
        raise UserError(f"{folder}: expected a folder for each class, found none, and {loose} images without a class.")
    entries = []
    for inner in classes:
        files = list(_files(inner))
        if not files:
            raise UserError(f"{folder}: expected images of every class, found none in {inner.name}.")
        entries += [Entry(path, inner.name, split) for path in files]
    return entries


def _folders(folder: Path) -> list[Path]:
    """Folders that mean something: neither hidden ones nor what macOS packs beside the others."""
    names = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")
    return sorted(path for path in names if path.is_dir())


def _files(folder: Path) -> Iterator[Path]:
    """The image files in a folder and below, by their endings, sorted; hidden ones are none."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in ENDINGS and not hidden and path.is_file():
            yield path


def _read_csv(file: Path) -> list[Entry]:
    if not file.is_file():
        raise UserError(f"--images: expected a CSV of paths and labels, found no such file: {file}.")
    try:
        text = file.read_bytes().decode("utf-8-sig")
        lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        _check_columns(file, lines.fieldnames or [])
        entries = [_entry(file, lines.line_num, row) for row in lines if any(row.values())]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise UserError(f"{file}: expected a CSV in UTF-8, found another file ({problem}).") from None
    _check_files(file, entries)
    return entries


def _check_columns(file: Path, found: object) -> None:
    names = [str(name) for name in found] if isinstance(found, list) else []
    for name in ("path", "label"):
        if name not in names:
            hint = nearest(name, names) if names else ""
            raise UserError(f"{file}: expected the columns path, label and perhaps split, found no '{name}'{hint}.")


def _entry(file: Path, line: int, row: dict[str, str | None]) -> Entry:
    """One row; paths are relative to the CSV's folder."""
    path, label = row["path"] or "", (row["label"] or "").strip()
    split = (row.get("split") or "train").strip()
    if split not in SPLITS:
        raise UserError(f"{file}: line {line}: expected the split train, val or test, found '{split}'.")
    if not path or (not label and split != "test") or None in row:
        raise UserError(f"{file}: line {line}: expected a path and a label, found {list(row.values())!r:.100}.")
    return Entry(file.parent / path, None if split == "test" else label, split)


def _check_files(file: Path, entries: list[Entry]) -> None:
    """Raises UserError for files that are missing, and for one that is listed twice."""
    missing = [entry.path for entry in entries if not entry.path.is_file()]
    if missing:
        raise UserError(
            f"{file}: expected {len(entries)} image files, found {len(missing)} missing, first {missing[0]}."
        )
    twice = next((path for path, count in Counter(entry.path for entry in entries).items() if count > 1), None)
    if twice:
        raise UserError(f"{file}: expected every file once, found {twice} twice.")
