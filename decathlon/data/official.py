"""A domain's three annotation files together: one listing of its images, without the rows that have a problem."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlon.data.annotations import AnnotationFile, BrokenAnnotationsError, parse
from decathlon.data.problems import Kind, Problem
from decathlon.data.store import SPLITS
from decathlon.specs import IDS_PER_DOMAIN, Colour, DomainSpec, official_domains

Texts = dict[str, tuple[str, bytes]]  # split -> file name and content
Add = Callable[[Kind, str, str], None]  # kind, file, detail
_UNSEEN, _BAD = -2, -1


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
        """The listing of these rows, in their order."""
        files = [self.files[row] for row in rows]
        return SplitListing(self.image_ids[rows], self.labels[rows], self.heights[rows], self.widths[rows], files)


@dataclass(frozen=True)
class Listing:
    """One domain as annotated."""

    name: str
    number: int
    class_names: tuple[str, ...]
    description: str
    sizes: dict[str, int]  # split -> images listed, before any was left out
    splits: dict[str, SplitListing]
    digest: str  # of the annotation files
    chosen: Mapping[str, Any] = field(default_factory=dict)  # fields of the spec that the user decided

    @property
    def source(self) -> str:
        """`miniature` where the files say so, `official` where domain and split sizes are the official ones, else `custom`."""
        if "miniature" in self.description.lower():
            return "miniature"
        official = official_domains().get(self.name)
        is_official = official and official.images == self.sizes and official.classes == len(self.class_names)
        return "official" if is_official else "custom"

    def spec(self, mean: Colour, std: Colour) -> DomainSpec:
        """The domain's spec, with the statistics measured on train unless the images are the official ones.

        Of a domain outside the challenge nothing is known that would allow mirrors or crops: it gets neither.
        """
        official = official_domains().get(self.name)
        if official is None:
            spec = DomainSpec(
                self.name, self.number, self.class_names, mean, std, mirror=False, fit="squash", source="custom"
            )
        elif self.source == "official":
            spec = official.spec(self.class_names)
        else:
            spec = official.spec(self.class_names, mean, std, self.source)
        return replace(spec, **self.chosen)


def file_names(domain: str, split: str) -> tuple[str, ...]:
    """The names under which a split's annotations may come, best first."""
    if split == "test":
        return f"{domain}_test_stripped.json", f"{domain}_test.json"
    return (f"{domain}_{split}.json",)


def domain_and_split(file_name: str) -> tuple[str, str] | None:
    """What an annotation file is about, by its name; None for another file."""
    stem = file_name.removesuffix(".json").removesuffix("_stripped")
    domain, _, split = stem.rpartition("_")
    return (domain, split) if domain and file_name in file_names(domain, split) and split in SPLITS else None


def read_listing(
    domain: str, texts: Texts, problems: list[Problem], required: Sequence[str] = SPLITS
) -> Listing | None:
    """One domain from the texts of its files; None where a required one is missing or one is beyond use.

    Every problem is added to `problems`, and rows that have one are left out. A label comes from `category_id` alone:
    its place in `categories`.
    """

    def add(kind: Kind, file: str, detail: str) -> None:
        problems.append(Problem(domain, kind, file, detail))

    documents = _parse_all(domain, texts, add, required)
    if documents is None:
        return None
    first = documents["train"]
    listing = Listing(
        name=domain,
        number=first.number,
        class_names=first.class_names,
        description=first.description,
        sizes={split: len(document.images) for split, document in documents.items()},
        splits={split: _rows(documents.pop(split), split == "test", add) for split in SPLITS if split in texts},
        digest=digest_of(texts[split][1] for split in SPLITS if split in texts),
    )
    return replace(listing, splits=_without_repeats(listing, add))


def digest_of(texts: Iterable[bytes]) -> str:
    """What identifies the annotations that a domain was made from."""
    return hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts)).hexdigest()


def _parse_all(domain: str, texts: Texts, add: Add, required: Sequence[str]) -> dict[str, AnnotationFile] | None:
    documents, lacking = {}, False
    for split in SPLITS:
        if split not in texts:
            if split in required:
                add("annotations", file_names(domain, split)[0], "missing")
                lacking = True
            continue
        name, text = texts[split]
        try:
            documents[split] = parse(domain, name, text)
        except BrokenAnnotationsError as problem:
            add("annotations", name, str(problem))
            lacking = True
    if lacking:
        return None
    first = documents["train"]
    differing = [document.name for document in documents.values() if document.class_names != first.class_names]
    for name in differing:
        add("annotations", name, f"its categories are not those of {first.name}")
    return None if differing else documents


def _rows(document: AnnotationFile, is_test: bool, add: Add) -> SplitListing:
    """One file's images in arrays, without those whose label is not sure (in test there are no labels)."""
    images, count = document.images, len(document.images)
    labels = np.full(count, _BAD, np.int32) if is_test else _labels(document, add)
    listing = SplitListing(
        image_ids=np.fromiter((image.image_id for image in images), np.int64, count),
        labels=labels,
        heights=np.fromiter((image.height for image in images), np.int32, count),
        widths=np.fromiter((image.width for image in images), np.int32, count),
        files=[image.file for image in images],
    )
    keep = np.arange(count) if is_test else np.flatnonzero(labels >= 0)
    return listing if len(keep) == count else listing.take(keep)


def _labels(document: AnnotationFile, add: Add) -> NDArray[np.int32]:
    """The label of every image; -1, and a problem, where it has none that is sure."""
    images = document.images
    rows = {image.image_id: row for row, image in reversed(list(enumerate(images)))}  # the first of a repeated id
    labels = np.full(len(images), _UNSEEN, np.int32)
    for image_id, category_id in document.annotations:
        row = rows.get(image_id)
        label = category_id - document.number * IDS_PER_DOMAIN - 1
        if row is None:
            add("annotation without image", document.name, f"image id {image_id} is not in its list of images")
        elif not 0 <= label < len(document.class_names):
            add("category outside the list", images[row].file, f"category id {category_id}, image id {image_id}")
            labels[row] = _BAD
        elif labels[row] != _UNSEEN:
            add("duplicate id", images[row].file, f"image id {image_id} is annotated twice in {document.name}")
            labels[row] = _BAD
        else:
            labels[row] = label
    for row in np.flatnonzero(labels == _UNSEEN).tolist():
        first = rows[images[row].image_id]
        if first == row:
            add("image without annotation", images[row].file, f"image id {images[row].image_id} in {document.name}")
        labels[row] = labels[first]  # a repeated id is told, and left out, as such
    return labels


def _without_repeats(listing: Listing, add: Add) -> dict[str, SplitListing]:
    """Each image id and each file once, where it is listed first (train before val before test)."""
    seen_in: dict[int | str, str] = {}  # image id or file -> split
    splits = {}
    for split, rows in listing.splits.items():
        keep = []
        for row, (image_id, file) in enumerate(zip(rows.image_ids.tolist(), rows.files, strict=True)):
            earlier = seen_in.get(file) or seen_in.get(image_id)
            if earlier:
                kind: Kind = "duplicate id" if earlier == split else "image in two splits"
                add(kind, file, f"image id {image_id}, listed in {earlier} and again in {split}")
            elif image_id // IDS_PER_DOMAIN != listing.number:
                add("id of another domain", file, f"image id {image_id}, expected {listing.number}*10^7 and more")
            else:
                seen_in[file] = seen_in[image_id] = split
                keep.append(row)
        splits[split] = rows if len(keep) == len(rows) else rows.take(np.array(keep, np.int64))
    return splits
