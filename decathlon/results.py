"""`results.json`, the challenge's format of a submission: written, packed, and read without trust.

It is one flat list over all domains, ``[{"image_id": int, "category_id": int}, ...]``, with one entry for every test image.
Whether the entries fit the challenge, and what they are worth, is for `decathlon.submission` to say.
"""

import json
import re
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtan_core.errors import UserError
from mtan_core.files import replacing, write_json

LARGEST = 256 * 2**20  # bytes; the official 139,760 entries take 7 MB
_ENTRY = '{"image_id": integer, "category_id": integer}'
_OPENING = re.compile(r"[ \t\n\r]*\[[ \t\n\r]*")
_BETWEEN = re.compile(r"[ \t\n\r]*([,\]])[ \t\n\r]*")
# An object becomes a tuple of its pairs: unlike a dict it shows a key that is there twice, and unlike a list it is no list.
_DECODER = json.JSONDecoder(object_pairs_hook=tuple)


@dataclass(frozen=True)
class Predictions:
    """The entries of a `results.json`, in its order."""

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]

    def where(self, chosen: NDArray[np.bool_]) -> "Predictions":
        return Predictions(self.image_ids[chosen], self.category_ids[chosen])


def write_results(path: Path, image_ids: Iterable[int], category_ids: Iterable[int]) -> None:
    """Write predictions as `results.json`, atomically. Raises ValueError where the two are not of one length."""
    pairs = zip(image_ids, category_ids, strict=True)
    write_json(path, [{"image_id": int(image), "category_id": int(category)} for image, category in pairs])


def zip_results(path: Path) -> Path:
    """Pack a results file as the server took it: a `.zip` beside it that holds `results.json`; the same bytes every time."""
    packed = path.with_suffix(".zip")
    member = zipfile.ZipInfo("results.json", date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system, member.external_attr = 3, 0o644 << 16  # as on Unix, whatever system packs it
    with replacing(packed) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed


def read_results(path: Path) -> Predictions:
    """Read a `results.json`, or a `.zip` that holds one, in one pass that keeps two integers of an entry.

    Raises UserError for anything but a list of entries with these two integers, naming the first offending entry
    (counted from 1), and for a file of more than `LARGEST` bytes.
    """
    text = decode_json_text(_read_bytes(path), str(path))
    images, categories = array("q"), array("q")
    for number, entry in enumerate(_entries(text, path), start=1):
        try:
            image, category = _two_integers(entry)
            images.append(image)
            categories.append(category)
        except (ValueError, OverflowError):
            raise UserError(f"{path}: entry {number}: expected {_ENTRY}, found {_show(entry)}.") from None
    return Predictions(np.array(images, dtype=np.int64), np.array(categories, dtype=np.int64))


def _two_integers(entry: Any) -> tuple[int, int]:
    """Image and category id of a decoded entry; ValueError for any other shape."""
    if type(entry) is not tuple:
        raise ValueError
    (first, image), (second, category) = entry
    if first == "category_id":
        first, image, second, category = second, category, first, image
    if first != "image_id" or second != "category_id" or type(image) is not int or type(category) is not int:
        raise ValueError
    return image, category


def _entries(text: str, path: Path) -> Iterator[Any]:
    """The elements of the list, decoded one by one, so that a bad one is met before the rest is held in memory."""
    opening = _OPENING.match(text)
    if not opening:
        raise UserError(f"{path}: expected a list of {_ENTRY}, found {_show_text(text)}.")
    position, number, closed = opening.end(), 1, False
    if text[position : position + 1] == "]":
        position, closed = position + 1, True
    while not closed:
        try:
            entry, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as problem:
            cut = "" if text.rstrip().endswith("]") else "; the list has no end, as in a file that was cut off"
            raise UserError(f"{path}: entry {number} cannot be read as JSON: {_reason(problem)}{cut}.") from None
        yield entry
        between = _BETWEEN.match(text, position)
        if not between:
            found = _show_text(text[position : position + 40])
            raise UserError(f"{path}: after entry {number}: expected ',' or the list's closing ']', found {found}.")
        position, number, closed = between.end(), number + 1, between[1] == "]"
    if text[position:].strip():
        raise UserError(f"{path}: expected nothing after the list, found {_show_text(text[position : position + 40])}.")


def _read_bytes(path: Path) -> bytes:
    """The bytes of a results file, out of its archive where it is in one."""
    with path.open("rb") as file:
        if path.suffix.lower() == ".zip" or file.read(4) == b"PK\x03\x04":
            return _read_packed(path)
        file.seek(0)
        return _limited(file.read(LARGEST + 1), path)


def _read_packed(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            if "results.json" not in archive.namelist():
                held = ", ".join(archive.namelist()[:5]) or "nothing"
                raise UserError(f"{path}: expected an archive with 'results.json' at its top, it holds {held}.")
            with archive.open("results.json") as file:
                return _limited(file.read(LARGEST + 1), path)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as problem:
        # RuntimeError and NotImplementedError: encrypted, or packed in a way that Python cannot undo
        raise UserError(f"{path}: cannot be read as a zip archive: {problem}.") from None


def _limited(data: bytes, path: Path) -> bytes:
    if len(data) > LARGEST:
        raise UserError(f"{path}: expected at most {LARGEST // 2**20} MB of predictions, found more.")
    return data


def decode_json_text(data: bytes, where: str) -> str:
    """The text of a JSON file, in whichever Unicode form it is. Raises UserError if it is empty or no text."""
    if not data.strip():
        raise UserError(f"{where}: expected JSON, found an empty file.")
    try:
        encoding = json.detect_encoding(data)
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"{where}: expected JSON, found bytes that are no text.") from None


def _reason(problem: Exception) -> str:
    """Why JSON could not be decoded, in words that follow a colon."""
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    if isinstance(problem, json.JSONDecodeError):
        return f"{problem.msg.removesuffix(' at')} at line {problem.lineno}, column {problem.colno}"
    return "it holds a number of too many digits"  # the interpreter's limit against slow conversions


def _show(entry: Any) -> str:
    """A decoded entry as JSON again, shortened; objects are tuples of pairs here."""
    if isinstance(entry, tuple):
        pairs = ", ".join(f"{json.dumps(key)[:40]}: {_show_value(value)}" for key, value in entry[:4])
        return "{" + pairs + (", ...}" if len(entry) > 4 else "}")
    return _show_value(entry)


def _show_value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "{...}" if isinstance(value, tuple) else "[...]"
    return json.dumps(value)[:60]


def _show_text(text: str) -> str:
    start = text.strip()[:24]
    return "an object {...}" if start.startswith("{") else f"'{start}'" if start else "the end of the file"
