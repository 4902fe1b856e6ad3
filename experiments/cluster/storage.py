"""Where a search leaves Ray's state and its trials' checkpoints: a folder, or any URI that pyarrow reads and writes."""

import io
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from mtan_core.errors import UserError


def absolute(place: str) -> str:
    """A folder's whole name, a URI as it is: workers, and who resumes, stand in other folders."""
    return place if "://" in place else str(Path(place).absolute())


class WholeFiles(LocalFileSystem):
    """Local files that take their names when they are whole: Ray writes its state again and again over itself, and a
    search that is killed on the way must not lose it. Object stores are so by nature."""

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return _WholeFile(path) if mode == "wb" else super()._open(path, mode=mode, **options)


class _WholeFile(io.FileIO):
    def __init__(self, path: str) -> None:
        folder, name = os.path.split(path)
        self.final, self.temporary = path, os.path.join(folder, f".tmp-{secrets.token_hex(4)}-{name}")
        self.failed = False
        super().__init__(self.temporary, "w")

    def write(self, data: Any) -> int:
        """All of the data: a raw file may take less."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest):
                rest = rest[super().write(rest) :]
        except OSError:
            self.failed = True
            raise
        return size

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self.failed:
            os.unlink(self.temporary)
        else:
            os.replace(self.temporary, self.final)


@dataclass(frozen=True)
class Storage:
    """A place on one of pyarrow's file systems."""

    filesystem: fs.FileSystem
    path: str

    def exists(self) -> bool:
        return bool(self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound)


def open_storage(where: str) -> Storage:
    """The place of a folder's name or a URI. Raises UserError for a URI that pyarrow does not know."""
    if "://" not in where:
        return _local(where)
    try:
        filesystem, path = fs.FileSystem.from_uri(where)
    except (OSError, ValueError) as problem:  # Arrow's own errors are both
        raise UserError(f"--storage: expected a folder or URI, found {where}: {_first_line(problem)}.") from None
    return _local(path) if filesystem.type_name == "local" else Storage(filesystem, path.rstrip("/"))


def _local(folder: str) -> Storage:
    return Storage(fs.PyFileSystem(fs.FSSpecHandler(WholeFiles())), str(Path(folder).absolute()))


def refuse_unwritable(storage: Storage, where: str) -> None:
    """Raises UserError where nothing can be written."""
    probe = f"{storage.path}/.tmp-{secrets.token_hex(4)}"
    try:
        storage.filesystem.create_dir(storage.path, recursive=True)
        with storage.filesystem.open_output_stream(probe) as stream:
            stream.write(b"written\n")
        storage.filesystem.delete_file(probe)
    except (OSError, ValueError) as problem:
        raise UserError(f"--storage: expected a place to write, found {where}: {_first_line(problem)}.") from None


def remove_leftovers(place: Storage) -> None:
    """Remove what Ray writes of its own while a run lasts, and what a command that was killed could not."""
    for info in place.filesystem.get_file_info(fs.FileSelector(place.path, allow_not_found=True)):
        if info.base_name.startswith(".tmp-") and info.type == fs.FileType.Directory:
            place.filesystem.delete_dir(info.path)
        elif info.base_name.startswith(".tmp-"):
            place.filesystem.delete_file(info.path)


def refuse_foreign(*places: Path) -> None:
    """Raises UserError where something of a search is another user's: reading Ray's state can run any program."""
    for place in places:
        if place.exists() and place.stat().st_uid != os.getuid():
            raise UserError(
                f"Expected a search of one's own, as Ray's state can run any program when it is read, found another user's: {place}."
            )


def refuse_absent(storage: Storage, where: str) -> None:
    """Raises UserError where the storage of a search is not there any longer."""
    try:
        there = storage.exists()
    except OSError as problem:
        raise UserError(f"Expected the search's storage at {where}, found {_first_line(problem)}.") from None
    if not there:
        raise UserError(f"Expected the search's storage at {where}, found none: was it moved?")


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0].rstrip(".")
