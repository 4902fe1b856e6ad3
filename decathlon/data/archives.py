"""Archives as streams: tar (plain or compressed, also tar in tar) and zip, read member by member, never unpacked to disk.

Names of members are only ever compared with annotated names; nothing is written under them. Links, devices and whatever
else is no regular file are passed over.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from mtan_core.errors import UserError

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ENDINGS = (*TAR_ENDINGS, ".zip")
_BUFFER = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)


class Member(NamedTuple):
    """A regular file in an archive. `read` must be called before the next member is asked for."""

    name: str
    read: Callable[[], bytes]


class End(NamedTuple):
    """The end of an archive, or of one within it."""

    name: str


def is_archive(path: str | Path) -> bool:
    return str(path).lower().endswith(ENDINGS)


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[Iterator[Member | End], IO[bytes]]]:
    """All files in an archive and in the tars within it, in their order, and the raw file (its `tell` is the progress).

    Raises UserError, while it is read, for an archive that is damaged or cut off.
    """
    with path.open("rb", buffering=_BUFFER) as raw, closing(_guarded(path, raw)) as members:
        yield members, raw


def _guarded(path: Path, raw: IO[bytes]) -> Generator[Member | End, None, None]:
    try:
        yield from _zip(raw) if path.suffix.lower() == ".zip" else _tar(raw, path.name)
        yield End(path.name)
    except _DAMAGE as problem:
        raise UserError(
            f"Expected a whole archive, found a damaged or cut off one: {path} ({problem}); fetch it again."
        ) from None


def _tar(file: IO[bytes], name: str) -> Iterator[Member | End]:
    # tarfile's own streaming modes copy their whole buffer at every small read. Here it believes that it can seek, and
    # only ever seeks forward: at no cost in a plain file, by decompressing in a compressed one.
    with _decompressed(file, name) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header read, 1.3 million of ImageNet's
            if not member.isreg():
                continue
            if member.name.lower().endswith(TAR_ENDINGS):
                with _open(tar, member) as inner:
                    yield from _tar(inner, member.name)
                yield End(member.name)
            else:
                yield Member(member.name, partial(_content, tar, member))


@contextmanager
def _decompressed(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    openers: dict[str, Callable[[IO[bytes]], Any]] = {
        ".gz": gzip.open,
        ".tgz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
    }
    opener = openers.get(PurePosixPath(name.lower()).suffix)
    if opener is None:
        yield file
    else:
        with opener(file) as stream, io.BufferedReader(stream, _BUFFER) as plain:
            yield plain


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None  # a regular file
    return file


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = _open(tar, member).read()
    if len(content) < member.size:
        raise tarfile.ReadError(f"unexpected end of data in {member.name}")
    return content


def _zip(file: IO[bytes]) -> Iterator[Member | End]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield Member(info.filename, partial(archive.read, info))
