"""Where official files come from: unpacked roots and archives, several of them together if need be."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from decathlon.data.archives import ENDINGS, End, Member, is_archive, open_archive
from decathlon.data.official import Texts, domain_and_split, file_names
from decathlon.data.store import SPLITS
from decathlon.specs import official_domains
from mtan_core.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")


@dataclass
class Source:
    """Folders in the official layout (`data/<domain>`, `annotations`) and archives that hold the same."""

    roots: list[Path]
    archives: list[Path]  # smallest first: the annotations are in the smallest

    def __str__(self) -> str:
        return ", ".join(str(path) for path in [*self.roots, *self.archives])

    def unpacked(self) -> dict[str, Path]:
        """The domains that lie here as folders, with the roots that hold their `data`."""
        found: dict[str, Path] = {}
        for root in self.roots:
            data = root / "data"
            for folder in sorted(data.iterdir()) if data.is_dir() else []:
                if any((folder / split).is_dir() for split in SPLITS):
                    found.setdefault(folder.name, root)
        return found


@dataclass
class Survey:
    """What a source holds."""

    texts: dict[str, Texts] = field(default_factory=dict)  # domain -> split -> annotation file
    unpacked: dict[str, Path] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)  # domains of which an image was met in an archive

    def has_annotations(self, domains: Iterable[str]) -> bool:
        return all(len(self.texts.get(domain, {})) == len(SPLITS) for domain in domains)


def find_source(paths: list[Path]) -> Source:
    """Roots and archives among these paths and directly in these folders. Raises UserError where there are none."""
    source = Source([], [])
    for path in paths:
        if path.is_dir():
            _look_into(path, source)
        elif path.is_file() and is_archive(path):
            source.archives.append(path)
        else:
            found = "something else" if path.exists() else "nothing"
            raise UserError(f"Expected a folder or an archive ({', '.join(ENDINGS)}), found {found}: {path}.")
    if not source.roots and not source.archives:
        where = ", ".join(str(path) for path in paths)
        raise UserError(f"Expected folders 'data' and 'annotations', or archives, found neither in {where}.")
    source.archives.sort(key=lambda path: (path.stat().st_size, path.name))
    return source


def _look_into(folder: Path, source: Source) -> None:
    """A folder, what the devkit unpacks to within it, and the archives beside or in its `data`."""
    for root in (folder, folder / "decathlon-1.0"):
        if (root / "data").is_dir() or (root / "annotations").is_dir():
            source.roots.append(root)
    for place in (folder, folder / "data"):
        files = sorted(place.iterdir()) if place.is_dir() else []
        source.archives += [file for file in files if file.is_file() and is_archive(file)]


def survey(source: Source, wanted: list[str] | None) -> Survey:
    """Find the annotations, and which domains are there.

    Archives are read until nothing more is to be learnt: all annotations, and of each wanted domain that it is there.
    """
    found = Survey(unpacked=source.unpacked())
    for root in source.roots:
        for file in sorted((root / "annotations").glob("*.json")):
            _keep_text(found, file.name, file.read_bytes)
    for archive in source.archives:
        with open_archive(archive) as (members, _):
            for member in members:
                if isinstance(member, Member):
                    _look_at(found, member)
                if (wanted or isinstance(member, End)) and _settled(found, wanted):
                    return found
    return found


def _settled(found: Survey, wanted: list[str] | None) -> bool:
    present = found.unpacked.keys() | found.archived
    return found.has_annotations(wanted or official_domains()) and present.issuperset(wanted or ())


def _look_at(found: Survey, member: Member) -> None:
    if member.name.endswith(".json"):
        _keep_text(found, PurePosixPath(member.name).name, member.read)
    elif key := image_key(member.name, found.texts.keys() | official_domains().keys()):
        found.archived.add(key.split("/", 2)[1])


def _keep_text(found: Survey, name: str, read: Callable[[], bytes]) -> None:
    """Keep an annotation file; of two that serve, the better-named or else the first."""
    about = domain_and_split(name)
    if about is None:
        return
    domain, split = about
    texts = found.texts.setdefault(domain, {})
    if split not in texts or (name != texts[split][0] and name == file_names(domain, split)[0]):
        texts[split] = name, read()


def image_key(name: str, domains: Iterable[str]) -> str | None:
    """The annotated name (`data/<domain>/<split>/...`) of an archive's member; None for what is no image of a domain.

    Archives begin at `<domain>`, at `data` or above it. Absolute names and names with `..` are no image's.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    if not name.lower().endswith(IMAGES) or "" in parts or ".." in parts:
        return None
    for place in range(len(parts) - 2):
        if parts[place] in domains and parts[place + 1] in SPLITS:
            return "/".join(["data", *parts[place:]])
    return None


def unpacked_images(root: Path, domain: str) -> Iterator[str]:
    """The annotated names of all image files of a domain that lie under `root`."""
    top = root / "data" / domain
    for split in SPLITS:
        for folder, _, files in os.walk(top / split):
            prefix = "/".join(["data", domain, *Path(folder).relative_to(top).parts])
            yield from (f"{prefix}/{file}" for file in files if file.lower().endswith(IMAGES))


def archived_images(archive: Path, domains: Iterable[str]) -> Iterator[tuple[str, bytes] | End | int]:
    """Name and content of the images of these domains in an archive; the end of each archive; at times, the bytes read so far."""
    domains = set(domains)
    with open_archive(archive) as (members, raw):
        for count, member in enumerate(members):
            if isinstance(member, End):
                yield member
            elif key := image_key(member.name, domains):
                yield key, member.read()
            if count % 256 == 0:
                yield raw.tell()


def resolve(root: Path, file: str) -> str | None:
    """Where an annotated file lies under `root`; None for a name that would lead out of it."""
    return None if not file or file[0] == "/" or ".." in file.split("/") else f"{root}/{file}"
