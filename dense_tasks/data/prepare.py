"""From official files to a root in the npy layout: a frame at a time, each file whole or absent, the root last.

The frames are written to `<root>.partial`, which takes the root's name when all are there. A pass that is interrupted at any
moment leaves that folder; the next one with the same source and options goes on in it.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dense_tasks.data.arrays import ArrayError, open_array
from dense_tasks.datasets import DESCRIPTION, Dataset, describe
from mtan_core.errors import UserError
from mtan_core.files import LOCK, held, write_json
from mtan_core.progress import progress

NAMES = "names.json"
_BEGUN = "prepare.json"


@dataclass(frozen=True)
class SourceFrame:
    """One image of a source: `number` is its `<n>` in the root, `name` what `names.json` tells of it."""

    split: str
    number: int
    name: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Official files, looked at but not read. `options` is all that the result depends on; `arrays(frame)` gives a frame's
    arrays by folder and may be called by `threads` threads at once."""

    dataset: Dataset
    options: Mapping[str, Any]
    folders: Sequence[str]
    frames: Sequence[SourceFrame]
    arrays: Callable[[SourceFrame], Mapping[str, np.ndarray]]
    threads: int = 1


@dataclass(frozen=True)
class Prepared:
    """What a pass did: frames of each split in the root, and how many of all were written by this pass."""

    root: Path
    dataset: str
    frames: Mapping[str, int]
    written: int


def write_root(source: Source, root: Path) -> Prepared:
    """Write the root, or what it still lacks. Raises UserError where another root, or one begun with other options, lies."""
    counts = {split: sum(frame.split == split for frame in source.frames) for split in ("train", "val")}
    options = json.loads(json.dumps({**source.options, "frames": counts}))
    if _done(root, source, options):
        return Prepared(root, source.dataset.name, counts, 0)
    partial = root.absolute().with_name(f"{root.absolute().name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with held(partial, "a root"):
        _begin(partial, source, options)
        missing = [frame for frame in source.frames if not _complete(partial, source, frame)]
        with (
            progress(
                f"preparing {source.dataset.name}", len(source.frames), len(source.frames) - len(missing)
            ) as advance,
            ThreadPoolExecutor(source.threads) as pool,
        ):
            for group in _groups(missing, source.threads):
                for _ in pool.map(lambda frame: _write(partial, source, frame), group):
                    advance()
        _finish(partial, root, source, options)
    return Prepared(root, source.dataset.name, counts, len(missing))


def _groups(frames: Sequence[SourceFrame], threads: int) -> Iterator[Sequence[SourceFrame]]:
    """A few frames at a time, so that an interruption does not wait for all that are queued."""
    step = 4 * threads
    for start in range(0, len(frames), step):
        yield frames[start : start + step]


def _done(root: Path, source: Source, options: Mapping[str, Any]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        made = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))
        if (made["dataset"], made["prepared"]) == (source.dataset.name, options):
            return True
        found = f"one of {made['dataset']} with other options or from another source"
    except (OSError, ValueError, KeyError, TypeError):
        found = "something else"
    raise UserError(f"{root}: expected no folder or an empty one to prepare {source.dataset.name} in, found {found}.")


def _begin(partial: Path, source: Source, options: Mapping[str, Any]) -> None:
    """Note the options, or compare them with those of the pass that began."""
    wanted = {"dataset": source.dataset.name, **options}
    try:
        begun = json.loads((partial / _BEGUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_json(partial / _BEGUN, wanted)
        begun = wanted
    except ValueError:
        begun = {}
    differing = [key for key in wanted if begun.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise UserError(
            f"{partial}: expected what was begun with {key} {begun.get(key)}, found {key} {wanted[key]}: "
            "repeat it with the same source and options, or remove that folder."
        )
    for split in ("train", "val"):
        for folder in source.folders:
            (partial / split / folder).mkdir(parents=True, exist_ok=True)


def _path(partial: Path, frame: SourceFrame, folder: str) -> Path:
    return partial / frame.split / folder / f"{frame.number}.npy"


def _complete(partial: Path, source: Source, frame: SourceFrame) -> bool:
    """Whether all of a frame's files are there and whole: after a power cut a file may be there but empty."""
    try:
        for folder in source.folders:
            open_array(_path(partial, frame, folder))
    except (ArrayError, OSError):
        return False
    return True


def _write(partial: Path, source: Source, frame: SourceFrame) -> None:
    arrays = source.arrays(frame)
    for folder in source.folders:
        path = _path(partial, frame, folder)
        temporary = path.with_name(f".tmp-{secrets.token_hex(4)}")
        try:
            with temporary.open("wb") as file:
                np.save(file, arrays[folder], allow_pickle=False)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _finish(partial: Path, root: Path, source: Source, options: Mapping[str, Any]) -> None:
    """All frames are there: name them, describe the root, and give it its name once everything is on the disk."""
    names: dict[str, dict[str, Any]] = {"train": {}, "val": {}}
    for frame in source.frames:
        names[frame.split][str(frame.number)] = dict(frame.name)
    write_json(partial / NAMES, names, indent=1)
    describe(partial, source.dataset, dict(options))
    for left in [*partial.glob("*/*/.tmp-*"), partial / _BEGUN, partial / LOCK]:
        left.unlink(missing_ok=True)
    os.sync()
    os.replace(partial, root.absolute())
