"""Files that are either whole or not there: written under a temporary name, then renamed."""

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtan_core.errors import UserError

LOCK = ".lock"  # in a folder that a process writes


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes of this machine from writing into a folder. A process that is killed holds nothing any longer.

    Raises UserError where another process holds it. A file system that knows no locks is not locked.
    """
    path = folder / LOCK
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Expected {what} that nobody else writes, found one that another process is writing: {folder}."
            ) from None
        except OSError as problem:
            if problem.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def taken(path: Path) -> bool:
    """Whether something lies where a folder is to be made; what an interrupted writer left there does not count."""
    if not path.is_dir():
        return path.exists()
    return any(child.name != LOCK and not child.name.startswith(".tmp-") for child in path.iterdir())


def check_output(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Raises UserError, before any work is done, where no file can be written under this name.

    `suffixes` are the endings allowed (".png"); a name without any is allowed too.
    """
    if suffixes and path.suffix and path.suffix.lower() not in suffixes:
        raise UserError(f"Expected the name of a file that ends in {', '.join(suffixes)}, found {path}.")
    if path.is_dir():
        raise UserError(f"Expected the name of a file to write, found a folder: {path}.")
    _refuse_device(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UserError(f"Expected a folder to write {path.name} in, found a file: {folder}.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"Expected a folder to write {path.name} in, found one that is not ours to write: {folder}.")


def _refuse_device(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"Expected the name of a file to write, found a device or a pipe: {path}.")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError that names no file, as those of Arrow's, or a temporary one name this one."""
    try:
        yield
    except OSError as problem:
        named = str(problem.filename or "")
        if problem.errno is not None and (not named or "/.tmp-" in named):
            problem.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed to disk and takes the place of `path`, on failure it is removed.

    The temporary name ends like `path` does, as many writers choose their format by it. Works for files and for folders
    (a folder must not exist yet under its final name). An OSError on the way names `path`, not the temporary name.
    """
    _refuse_device(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            problem.filename = str(problem.filename or path).replace(str(temporary), str(path))
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    """Force what was written to the disk, so that a power cut cannot leave a renamed but empty file."""
    if path.is_dir():
        for child in path.rglob("*"):
            _sync(child)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically. Raises ValueError for NaN and infinities, which are not JSON."""
    write_text(path, json.dumps(document, indent=indent, allow_nan=False))
