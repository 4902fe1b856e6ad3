"""A user's own images become a domain of the store: measured, divided, and as large as the official ones."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from decathlon.data.assembly import Assembly
from decathlon.data.listing import Entry, list_images
from decathlon.data.official import Listing, SplitListing, digest_of, read_listing
from decathlon.data.pipeline import Boundary, Job, Read, UnusableError, decode_all
from decathlon.data.problems import Problem
from decathlon.data.resplit import divide
from decathlon.data.sources import find_source, resolve, survey
from decathlon.data.store import FORMAT, MARKER, SPLITS
from decathlon.specs import FIRST_IMAGE, IDS_PER_DOMAIN, Fit, official_domains
from mtan_core.decode import Pixels
from mtan_core.errors import UserError
from mtan_core.files import write_json
from mtan_core.progress import progress


@dataclass(frozen=True)
class Choices:
    """What the user decides of a new domain; None: what the domain is known by, else squash, no mirror, no baseline."""

    fit: Fit | None = None
    mirror: bool | None = None
    baseline_error: float | None = None  # error fraction
    val_share: float = 0.2  # of the labelled images, where there is no val; 0: none
    seed: int = 0
    skip: bool = False  # leave out images that cannot be used, instead of refusing


@dataclass(frozen=True)
class Made:
    """What a store was made of."""

    number: int
    images: dict[str, int]  # split -> images
    problems: list[Problem]  # images that were left out
    notes: list[str]  # what was decided on the way; they stand in the store's metadata as well


def write_store(source: Path, name: str, store: Path, taken: Collection[int], choices: Choices) -> Made:
    """Write a store of one domain from an image folder, a CSV, or an official root that holds the domain.

    `taken`: domain numbers that others have. Raises UserError for what is no such source, and, unless `choices.skip`,
    for the first image that cannot be used; nothing is left then.
    """
    if not 0 <= choices.val_share < 1:
        raise UserError(f"--val-share: expected a share of the images in [0, 1), found {choices.val_share}.")
    notes: list[str] = []
    problems: list[Problem] = []
    if (source / "annotations").is_dir():
        listing = _annotated(source, name, taken, problems, choices.skip, notes)
        read, place = None, lambda file: resolve(source, file) or ""
        listing = _divided(listing, choices, notes)
    else:
        read, place = read_any_size, str
        listing = _numbered(_divided(_listed(source, name, _free_number(taken)), choices, notes))
    listing = replace(listing, chosen=_chosen(choices))
    made = _write(listing, store, place, read, choices, problems, notes)
    bad = {problem.file for problem in made}
    counts = {split: len(set(rows.files) - bad) for split, rows in listing.splits.items()}
    write_json(store / MARKER, {"format": FORMAT, "domains": {name: list(listing.splits)}}, indent=1)
    return Made(listing.number, counts, made, notes)


def _chosen(choices: Choices) -> dict[str, object]:
    fields = {"fit": choices.fit, "mirror": choices.mirror, "baseline_error": choices.baseline_error}
    return {name: value for name, value in fields.items() if value is not None}


def _free_number(taken: Collection[int]) -> int:
    """The first number after the official ones that nobody has."""
    number = len(official_domains()) + 1
    while number in taken:
        number += 1
    return number


def _annotated(
    root: Path, name: str, taken: Collection[int], problems: list[Problem], skip: bool, notes: list[str]
) -> Listing:
    """A domain in the official layout, of which val and test may be missing; its number is its own where it is free."""
    found = survey(find_source([root]), [name])
    if name not in found.texts:
        raise UserError(
            f"{root}: expected annotations/{name}_train.json, found those of {', '.join(found.texts) or 'no domain'}."
        )
    listing = read_listing(name, found.texts[name], problems, required=("train",))
    if listing is None or (problems and not skip):
        raise _refusal(problems)
    if len(listing.class_names) < 2:
        raise UserError(f"{root}: expected images of at least two classes, found one ('{listing.class_names[0]}').")
    if listing.number not in taken:
        return listing
    number = _free_number(taken)
    notes.append(
        f"{name} has number {number} in the run, as its own, {listing.number}, is taken: "
        "a submission does not fit its annotation files"
    )
    shift = (number - listing.number) * IDS_PER_DOMAIN
    splits = {split: replace(rows, image_ids=rows.image_ids + shift) for split, rows in listing.splits.items()}
    return replace(listing, number=number, splits=splits)


def _listed(source: Path, name: str, number: int) -> Listing:
    """A domain from a folder or a CSV. Raises UserError for an official domain's name, whose classes and ids are fixed."""
    if name in official_domains():
        raise UserError(
            f"'{name}' is an official domain: expected its images in the official layout (a folder with data and "
            f"annotations), found {source}; or choose another name."
        )
    entries = list_images(source)
    names = tuple(sorted({entry.label for entry in entries if entry.label is not None}))
    by_split = {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
    sizes = {split: len(rows) for split, rows in by_split.items() if rows}
    splits = {split: _rows(by_split[split], names) for split in sizes}
    lines = (f"{entry.split}\t{entry.label}\t{entry.path}".encode() for entry in entries)
    return Listing(name, number, names, "", sizes, splits, digest_of(lines))


def _rows(entries: Sequence[Entry], names: Sequence[str]) -> SplitListing:
    """A split's images, whose sizes are not known before they are read."""
    places = {name: place for place, name in enumerate(names)}
    labels = np.array([-1 if entry.label is None else places[entry.label] for entry in entries], np.int32)
    nothing = np.zeros(len(entries), np.int32)
    return SplitListing(nothing.astype(np.int64), labels, nothing, nothing, [str(entry.path) for entry in entries])


def _numbered(listing: Listing) -> Listing:
    """The same with ids that count train, then val, then test from 1."""
    first, splits = listing.number * IDS_PER_DOMAIN + FIRST_IMAGE + 1, {}
    for split, rows in listing.splits.items():
        splits[split] = replace(rows, image_ids=np.arange(first, first + len(rows)))
        first += len(rows)
    return replace(listing, splits=splits)


def _divided(listing: Listing, choices: Choices, notes: list[str]) -> Listing:
    """With a val split, made of a part of train where there is none."""
    if "val" in listing.splits or not choices.val_share:
        return listing
    labelled = listing.splits["train"]
    size = max(1, round(choices.val_share * len(labelled)))
    train, val = divide(labelled, size, choices.seed, listing.number)
    if not len(val):
        notes.append(f"{listing.name} has one image of each class, so there is no val split")
        return listing
    notes.append(
        f"{listing.name} came without val: {len(val)} of {len(labelled)} images, of every class alike, are its val"
    )
    rest = {split: rows for split, rows in listing.splits.items() if split == "test"}
    return replace(listing, splits={"train": train, "val": val, **rest})


def read_any_size(job: Job, _: object) -> Pixels:
    """An image file of any size, made as large as official images are, exactly as it will be in prediction."""
    from decathlon.prediction import read_image

    try:
        return read_image(Path(str(job.data)))
    except UserError as problem:
        raise UnusableError("unreadable image", str(problem).rstrip(".")) from None


def _write(
    listing: Listing,
    store: Path,
    place: Callable[[str], str],
    read: Read | None,
    choices: Choices,
    told: list[Problem],
    notes: list[str],
) -> list[Problem]:
    """Read and write all images; returns the problems of those left out."""
    options = {"resplit": None, "val_share": choices.val_share, "seed": choices.seed, "notes": notes}
    assembly = Assembly(listing, store, skip=choices.skip, options=options, told=told)
    try:
        with progress(f"{listing.name} (images)", len(assembly)) as advance:
            for blocks in decode_all(_jobs(assembly, place), read):
                assert not isinstance(blocks, Boundary)
                for block in blocks:
                    assembly.take(block)
                    advance(len(block))
        assembly.finish()
    finally:
        assembly.abort()
    if assembly.failed and choices.skip:
        first, *_, empty = assembly.problems
        raise UserError(
            f"{listing.name}: expected images in {Path(empty.file).name}, found none that can be read; the first that cannot is "
            f"{first.file}."
        )
    if assembly.failed:
        raise _refusal(assembly.problems)
    return assembly.problems


def _jobs(assembly: Assembly, place: Callable[[str], str]) -> Iterator[Job | Boundary]:
    for rows in assembly.listing.splits.values():
        for file in rows.files:
            if job := assembly.job(file, place(file)):
                yield job


def _refusal(problems: Sequence[Problem]) -> UserError:
    """One sentence about the first problem."""
    first = problems[0]
    more = f"; {len(problems) - 1} more like it" if len(problems) > 1 else ""
    reason = f" ({first.detail})" if first.detail else ""
    told = (
        first.detail
        if first.file in first.detail
        else f"Expected whole images, found {first.kind} {first.file}{reason}"
    )
    return UserError(f"{told}{more}: mend {'them' if more else 'it'}, or leave images out by --on-error skip.")
