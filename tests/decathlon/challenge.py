"""A few annotation files and predictions in the official format, small enough to write out by hand."""

import json
import zipfile
from pathlib import Path
from typing import Any

from decathlon.specs import FIRST_IMAGE, IDS_PER_DOMAIN

Entry = dict[str, Any]


def image_id(number: int, place: int) -> int:
    """The official id of a domain's image, counted from 1 over train, val and test."""
    return number * IDS_PER_DOMAIN + FIRST_IMAGE + place


def annotations(
    number: int, labels: list[int], classes: int, first: int = 1, description: str = "Decathlon", stripped: bool = False
) -> dict[str, Any]:
    """One annotation file; `labels` are places in the list of categories, one per image."""
    ids = [image_id(number, first + place) for place in range(len(labels))]
    base = number * IDS_PER_DOMAIN + 1
    document: dict[str, Any] = {
        "info": {"description": description},
        "images": [{"id": i, "width": 72, "height": 72, "file_name": f"{i}.jpg"} for i in ids],
        "categories": [{"id": base + c, "name": f"c{c}", "supercategory": "any"} for c in range(classes)],
        "licenses": [],
    }
    if not stripped:
        pairs = zip(ids, labels, strict=True)
        document["annotations"] = [{"id": i, "image_id": i, "category_id": base + label} for i, label in pairs]
    return document


def write_annotations(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in files.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


def zip_folder(folder: Path) -> Path:
    packed = folder.with_suffix(".zip")
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return packed


def truth(*documents: dict[str, Any]) -> list[Entry]:
    """The perfect predictions for some labelled annotation files."""
    return [
        {"image_id": row["image_id"], "category_id": row["category_id"]}
        for document in documents
        for row in document["annotations"]
    ]


def write_entries(path: Path, entries: list[Entry]) -> Path:
    path.write_text(json.dumps(entries))
    return path
