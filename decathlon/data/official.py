"""The official annotation files: COCO-style JSON, one a split, checked and held in compact arrays.

ImageNet's lists 1.2 million images: every JSON object becomes a tuple while the text is parsed, so that the memory
taken stays a few hundred bytes an image.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decathlon.data.problems import Kind, Problem
from decathlon.data.store import SPLITS
from decathlon.specs import IDS_PER_DOMAIN, official_domains

Problems = list[Problem]


class _Image(NamedTuple):
    image_id: int
    width: int
    height: int
    file: str


class _Annotation(NamedTuple):
    image_id: int
    category_id: int


@dataclass(frozen=True)
class SplitListing:
    """The images of one split as annotated, in the file's order; `labels` is all -1 in test."""

    image_ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    files: list[str]  # e.g. `data/dtd/train/0001/000001.jpg`

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: NDArray[np.int64]) -> "SplitListing":
        arrays = (values[rows] for values in (self.image_ids, self.labels, self.heights, self.widths))
        return SplitListing(*arrays, [self.files[row] for row in rows])


@dataclass(frozen=True)
class Listing:
    """One domain as annotated."""

    name: str
    number: int
    class_names: tuple[str, ...]
    description: str
    sizes: dict[str, int]  # split -> images listed, before any was left out
    splits: dict[str, SplitListing]
    digest: str  # of the three files

    @property
    def source(self) -> str:
        """`miniature` where the files say so, `official` where domain and split sizes are the official ones, else `custom`."""
        if "miniature" in self.description.lower():
            return "miniature"
        official = official_domains().get(self.name)
        is_official = official and official.images == self.sizes and official.classes == len(self.class_names)
        return "official" if is_official else "custom"


def file_names(domain: str, split: str) -> tuple[str, ...]:
    """The names under which a split's annotations may come, best first."""
    if split == "test":
        return f"{domain}_test_stripped.json", f"{domain}_test.json"
    return (f"{domain}_{split}.json",)


def domain_and_split(file_name: str) -> tuple[str, str] | None:
    """What an annotation file is about, by its name; None for another file."""
    stem = file_name.removesuffix(".json")
    for split in SPLITS:
        for ending in (f"_{split}_stripped", f"_{split}"):
            if stem != file_name and stem.endswith(ending) and len(stem) > len(ending):
                return stem.removesuffix(ending), split
    return None


def read_listing(domain: str, texts: dict[str, tuple[str, bytes]], problems: Problems) -> Listing | None:
    """One domain from the texts of its files (split -> file name and content); None where they are beyond use.

    Every problem is added to `problems`, with rows that have one left out of the listing. A label comes from
    `category_id` alone: its place in `categories`.
    """
    missing = [split for split in SPLITS if split not in texts]
    problems += [Problem(domain, "annotations", file_names(domain, split)[0], "missing") for split in missing]
    parsed = {split: _parse(domain, *texts[split], problems) for split in SPLITS if split in texts}
    documents = {split: document for split, document in parsed.items() if document}
    if len(documents) < len(SPLITS) or not _same_categories(domain, documents, texts, problems):
        return None
    first = documents["train"]["categories"]
    number = first[0]["id"] // IDS_PER_DOMAIN
    listing = Listing(
        name=domain,
        number=number,
        class_names=tuple(category["name"] for category in first),
        description=str(documents["train"]["info"].get("description", "")),
        sizes={split: len(document["images"]) for split, document in documents.items()},
        splits={split: _split(domain, split, texts[split][0], documents.pop(split), problems) for split in SPLITS},
        digest=hashlib.sha256(b"".join(hashlib.sha256(texts[split][1]).digest() for split in SPLITS)).hexdigest(),
    )
    return _without_repeats(listing, problems)


def _parse(domain: str, file: str, text: bytes, problems: Problems) -> dict[str, Any] | None:
    """The document with its images and annotations as tuples; None, and a problem, where it is not of the official form."""

    def broken(detail: str) -> None:
        problems.append(Problem(domain, "annotations", file, detail))

    try:
        document = json.loads(text.decode("utf-8-sig"), object_hook=_compact)
    except ValueError as problem:
        return broken(f"not JSON: {problem}")
    if not isinstance(document, dict):
        return broken(f"expected an object with 'images' and 'categories', found a {type(document).__name__}")
    stripped = document.get("annotations") is None
    if stripped and "_test" in file:
        document["annotations"] = []
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            return broken(f"missing key '{key}'")
    for key, kind, keys in (
        ("images", _Image, "id, width, height, file_name"),
        ("annotations", _Annotation, "image_id, category_id"),
    ):
        odd = next((entry for entry in document[key] if not isinstance(entry, kind)), None)
        if odd is not None:
            return broken(f"expected {keys} in every entry of '{key}', found {str(odd)[:100]}")
    if not isinstance(document.setdefault("info", {}), dict):
        return broken("expected an object at 'info'")
    return document if _categories_fit(document["categories"], domain, broken) else None


def _compact(entry: dict[str, Any]) -> Any:
    """A tuple for an image or an annotation of the official form; everything else as it is."""
    match entry:
        case {"id": int(i), "width": int(width), "height": int(height), "file_name": str(file)}:
            return _Image(i, width, height, file)
        case {"image_id": int(i), "category_id": int(category)}:
            return _Annotation(i, category)
    return entry


def _categories_fit(categories: list[Any], domain: str, broken: Any) -> bool:
    """Whether the categories are d*10^7 + 1, 2, ... in this order, d being the domain's number (that of no other domain)."""
    official = official_domains()
    for place, category in enumerate(categories):
        if not (
            isinstance(category, dict) and type(category.get("id")) is int and isinstance(category.get("name"), str)
        ):
            broken(f"expected id and name in every entry of 'categories', found {str(category)[:100]}")
            return False
        number = official[domain].number if domain in official else categories[0]["id"] // IDS_PER_DOMAIN
        expected = number * IDS_PER_DOMAIN + place + 1
        if category["id"] != expected:
            broken(f"expected category id {expected} at place {place + 1} of 'categories', found {category['id']}")
            return False
    if not categories:
        broken("'categories' is empty")
        return False
    taken = {other.number: other.name for other in official.values() if other.name != domain}
    if domain not in official and (number in taken or number < 1):
        broken(
            f"its category ids are those of {taken.get(number, 'no domain')}: an added domain has a number of its own"
        )
        return False
    return True


def _same_categories(
    domain: str, documents: dict[str, Any], texts: dict[str, tuple[str, bytes]], problems: Problems
) -> bool:
    differing = [split for split in documents if documents[split]["categories"] != documents["train"]["categories"]]
    detail = "its 'categories' are not those of train"
    problems += [Problem(domain, "annotations", texts[split][0], detail) for split in differing]
    return not differing


def _split(domain: str, split: str, file: str, document: dict[str, Any], problems: Problems) -> SplitListing:
    """One split's rows, without those that have a problem."""
    images: list[_Image] = document["images"]
    classes = len(document["categories"])
    number = document["categories"][0]["id"] // IDS_PER_DOMAIN
    if split == "test":
        labels = np.full(len(images), -1, np.int32)
        keep = np.arange(len(images))
    else:
        labels = _labels(domain, file, images, document["annotations"], number, classes, problems)
        keep = np.flatnonzero(labels >= 0)
    count = len(images)
    listing = SplitListing(
        image_ids=np.fromiter((image.image_id for image in images), np.int64, count),
        labels=labels,
        heights=np.fromiter((image.height for image in images), np.int32, count),
        widths=np.fromiter((image.width for image in images), np.int32, count),
        files=[image.file for image in images],
    )
    return listing if len(keep) == count else listing.take(keep)


def _labels(
    domain: str,
    file: str,
    images: list[_Image],
    annotations: list[_Annotation],
    number: int,
    classes: int,
    problems: Problems,
) -> NDArray[np.int32]:
    """The label of every image; -1, and a problem, where it has none that is sure."""

    def add(kind: Kind, where: str, detail: str) -> None:
        problems.append(Problem(domain, kind, where, detail))

    rows = {image.image_id: row for row, image in enumerate(images)}
    labels = np.full(len(images), -2, np.int32)
    for image_id, category_id in annotations:
        row = rows.get(image_id)
        label = category_id - number * IDS_PER_DOMAIN - 1
        if row is None:
            add("annotation without image", file, f"image id {image_id}")
        elif not 0 <= label < classes:
            add("category outside the list", images[row].file, f"category id {category_id}, image id {image_id}")
            labels[row] = -1
        elif labels[row] != -2:
            add("duplicate id", images[row].file, f"image id {image_id} is annotated twice in {file}")
            labels[row] = -1
        else:
            labels[row] = label
    for row in np.flatnonzero(labels == -2):
        if rows[images[row].image_id] == row:  # else the id is listed twice, which is told as such
            add("image without annotation", images[row].file, f"image id {images[row].image_id} in {file}")
        else:
            labels[row] = labels[rows[images[row].image_id]]
    return labels


def _without_repeats(listing: Listing, problems: Problems) -> Listing:
    """The listing with each image id and each file once, where it is listed first (train before val before test)."""
    ids: dict[int, str] = {}
    files: dict[str, str] = {}
    splits = {}
    for split, rows in listing.splits.items():
        keep = []
        for row, (image_id, file) in enumerate(zip(rows.image_ids.tolist(), rows.files, strict=True)):
            problem = _repeat(listing, split, image_id, file, ids, files)
            if problem is None:
                ids[image_id], files[file] = split, split
                keep.append(row)
            else:
                problems.append(problem)
        splits[split] = rows if len(keep) == len(rows) else rows.take(np.array(keep, np.int64))
    return replace(listing, splits=splits)


def _repeat(
    listing: Listing, split: str, image_id: int, file: str, ids: dict[int, str], files: dict[str, str]
) -> Problem | None:
    """What is wrong with an image id or a file that was listed before, or with an id of another domain."""
    earlier = files.get(file) or ids.get(image_id)
    if earlier and earlier != split:
        return Problem(listing.name, "image in two splits", file, f"image id {image_id}, in {earlier} and {split}")
    if earlier:
        return Problem(listing.name, "duplicate id", file, f"image id {image_id} is listed twice in {split}")
    if image_id // IDS_PER_DOMAIN != listing.number:
        expected = f"{listing.number}*10^7 and more"
        return Problem(listing.name, "annotation without image", file, f"image id {image_id}, expected {expected}")
    return None


def all_files(listing: Listing) -> Iterator[str]:
    return chain.from_iterable(rows.files for rows in listing.splits.values())
