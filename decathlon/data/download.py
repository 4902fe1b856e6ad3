"""The official archives: fetched with resume, checked by size and sha256, and only then given their names.

A file on its way is called `<name>.part`, with the server's validator (ETag or date) in `<name>.part.json`: an
interrupted download goes on where it stopped if the server still has the same file (HTTP Range with If-Range), else anew.
"""

import hashlib
import http.client
import json
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from mtan_core.errors import UserError
from mtan_core.files import write_json
from mtan_core.progress import Advance, progress

ATTEMPTS = 5
TIMEOUT = 60.0  # seconds without a byte
_BLOCK = 1 << 18
_AGAIN = "it is not the official archive; remove it if it is still there, and fetch it again"
_DROPPED = (http.client.HTTPException, ConnectionError, TimeoutError, urllib.error.URLError)


@dataclass(frozen=True)
class Archive:
    """One official archive."""

    name: str
    url: str
    size: int
    sha256: str
    manual: str = ""  # how to get what cannot be fetched without an account


def official_archives() -> list[Archive]:
    tables = tomllib.loads((files("decathlon") / "archives.toml").read_text())
    return [Archive(name=name, **table) for name, table in tables.items()]


def download(
    folder: Path, base_url: str | None = None, archives: Iterable[Archive] | None = None, pause: float = 2.0
) -> dict[str, str]:
    """Fetch the archives into `folder`; the state of each (fetched, kept, or how to get it by hand) by name.

    A dropped connection is taken up again, `pause` seconds later and twice as long each time. Raises UserError for a
    server that refuses, connections that keep dropping without a byte of progress, and a file that is not the official one.
    """
    if base_url and not base_url.startswith(("http://", "https://")):
        raise UserError(f"--base-url: expected an address that begins with http:// or https://, found '{base_url}'.")
    folder.mkdir(parents=True, exist_ok=True)
    states = {}
    for archive in archives if archives is not None else official_archives():
        place = folder / archive.name
        if place.exists():
            _check(place, archive)
            states[archive.name] = "kept"
        elif archive.manual:
            states[archive.name] = f"{archive.manual}: {place}"
        else:
            _fetch(archive, place, f"{base_url.rstrip('/')}/{archive.name}" if base_url else archive.url, pause)
            states[archive.name] = "fetched"
    return states


def tell(states: dict[str, str], as_json: bool) -> None:
    """Print the state of every archive."""
    if as_json:
        print(json.dumps(states))
    else:
        print("\n".join(f"{name}: {state}" for name, state in states.items()))


def _fetch(archive: Archive, place: Path, url: str, pause: float) -> None:
    part = place.with_name(f"{place.name}.part")
    failures = 0
    with progress(f"{archive.name} (MB)", archive.size >> 20, _size(part) >> 20) as advance:
        while _size(part) < archive.size:
            before = _size(part)
            try:
                _receive(url, part, archive.size, advance)
            except urllib.error.HTTPError as refusal:
                raise UserError(f"Expected {url} to be served, found status {refusal.code} {refusal.reason}.") from None
            except _DROPPED as problem:
                failures = 1 if _size(part) > before else failures + 1
                if failures == ATTEMPTS:
                    raise UserError(
                        f"Expected {archive.size} bytes from {url}, found the connection failing at {_size(part)} "
                        f"({problem}); the same command goes on from there."
                    ) from None
                time.sleep(pause * 2 ** (failures - 1))
    try:
        _check(part, archive)
    except UserError:
        part.unlink()
        raise
    finally:
        _validator_file(part).unlink(missing_ok=True)
    part.replace(place)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _receive(url: str, part: Path, size: int, advance: Advance) -> None:
    """One request; what comes is appended to `part`, or replaces it where the server begins from the start."""
    held = _size(part)
    known = _validator_file(part)
    request = urllib.request.Request(url, headers={"User-Agent": "mtan-decathlon"})
    if held and known.exists():
        request.add_header("Range", f"bytes={held}-")
        request.add_header("If-Range", json.loads(known.read_text())["validator"])
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        offered = answer.headers.get("Content-Length")
        if answer.status == 200 and offered is not None and int(offered) != size:
            raise UserError(f"Expected {size} bytes, found {offered} offered: {url} is not the official archive.")
        goes_on = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {held}-")
        if answer.status == 206 and not goes_on:
            raise http.client.HTTPException(f"asked for bytes from {held}, got {answer.headers.get('Content-Range')}")
        if not goes_on:
            known.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
            advance(-(held >> 20))
        _remember(known, answer.headers)
        with part.open("ab") as file:
            _copy(answer, file, size, advance)
    if _size(part) < size:
        raise ConnectionError("it ended early")


def _remember(known: Path, headers: Any) -> None:
    """Keep what tells this version of the file from another: a strong ETag, else its date. Without one there is no resuming."""
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    if validator:
        write_json(known, {"validator": validator})


def _copy(answer: IO[bytes], file: IO[bytes], size: int, advance: Advance) -> None:
    position = file.tell()
    while block := answer.read(_BLOCK):
        file.write(block)
        advance(((position + len(block)) >> 20) - (position >> 20))
        position += len(block)
        if position > size:
            return  # a longer file than the official one is refused by its size


def _check(path: Path, archive: Archive) -> None:
    """Raises UserError unless the file is the official one, by size and sha256."""
    if path.stat().st_size != archive.size:
        raise UserError(f"Expected {archive.size} bytes in {path}, found {path.stat().st_size}: {_AGAIN}.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise UserError(f"Expected sha256 {archive.sha256} of {path}, found {found}: {_AGAIN}.")
