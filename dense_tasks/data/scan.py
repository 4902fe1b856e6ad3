"""What is in every file of a root: read once, remembered until the file changes."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dense_tasks.data.arrays import ArrayError, image_array, image_problem, label_array
from dense_tasks.tasks import Task
from mtan_core.files import write_text
from mtan_core.progress import late_progress

CACHE = "scan.json"
_FORMAT = 1
_THREADS = 4


class Facts(NamedTuple):
    """`size` is (height, width); `problem` the end of a sentence "found ..."; `defined`: any pixel has a label."""

    size: tuple[int, int] | None
    problem: str | None
    defined: bool


@dataclass(frozen=True)
class File:
    """One file to look at; `task` is None for an image."""

    path: Path
    task: Task | None

    @property
    def check(self) -> str:
        """What the file is checked for: facts found by another check do not hold."""
        return f"{_FORMAT}:{self.task.name}:{self.task.channels}" if self.task else f"{_FORMAT}:image"


def scan(root: Path, files: Mapping[str, File]) -> dict[str, Facts]:
    """The facts of every file, by its name within the root; those of files that did not change come from the last scan.

    They are remembered in `<root>/scan.json`, or among the user's caches where the root is read-only.
    """
    remembered = _Memory(root)
    facts = {name: known for name, file in files.items() if (known := remembered.recall(name, file)) is not None}
    fresh = [(name, file) for name, file in files.items() if name not in facts]
    if not fresh:
        return facts
    with (
        late_progress("looking at the files", len(fresh)) as advance,
        ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool,
    ):
        for (name, file), (stamp, found) in zip(fresh, pool.map(_examine, (file for _, file in fresh)), strict=True):
            facts[name] = found
            remembered.note(name, file, stamp, found)
            advance()
    remembered.write()
    return facts


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _examine(file: File) -> tuple[tuple[int, int], Facts]:
    stamp = _stamp(file.path)  # before reading, so that a change meanwhile is seen the next time
    try:
        return stamp, _facts(file)
    except ArrayError as problem:
        return stamp, Facts(None, str(problem), False)


def _facts(file: File) -> Facts:
    if file.task is None:
        image = image_array(file.path)
        return Facts(image.shape[:2], image_problem(image), True)
    labels = label_array(file.path, file.task)
    return Facts(labels.shape[:2], file.task.problem(labels), bool((labels != file.task.undefined).any()))


class _Memory:
    """The facts of the last scan, by file name, with the sizes and times of change that they were found at."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: dict[str, Any] = {}
        for path in self._places():
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
                if document["format"] == _FORMAT:
                    self._entries = dict(document["files"])
                    return
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a memory that cannot be read is none

    def recall(self, name: str, file: File) -> Facts | None:
        try:
            length, changed, check, size, problem, defined = self._entries[name]
            if (length, changed) != _stamp(file.path) or check != file.check:
                return None
            return Facts(None if size is None else (int(size[0]), int(size[1])), problem, bool(defined))
        except (KeyError, ValueError, TypeError, IndexError):
            return None

    def note(self, name: str, file: File, stamp: tuple[int, int], facts: Facts) -> None:
        self._entries[name] = [*stamp, file.check, facts.size, facts.problem, facts.defined]

    def write(self) -> None:
        text = json.dumps({"format": _FORMAT, "files": self._entries})
        for path in self._places():
            try:
                write_text(path, text)
                return
            except OSError:
                continue

    def _places(self) -> Iterator[Path]:
        if self._root.stat().st_mode & (
            stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
        ):  # root may write in a read-only folder
            yield self._root / CACHE
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        name = hashlib.sha256(str(self._root.resolve()).encode()).hexdigest()[:16]
        yield caches / "mtan" / f"dense-{name}.json"
