"""One official annotation file: COCO-style JSON, checked and held compactly.

ImageNet's lists 1.2 million images: every JSON object becomes a tuple while the text is parsed, so that the memory
taken stays a few hundred bytes an image.
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from decathlon.specs import IDS_PER_DOMAIN, official_domains


class BrokenAnnotationsError(ValueError):
    """An annotation file that is not of the official form; the message says where."""


class Image(NamedTuple):
    image_id: int
    width: int
    height: int
    file: str

    @property
    def is_storable(self) -> bool:
        """Whether the numbers fit the store's columns."""
        return max(abs(self.width), abs(self.height)) < 2**31 and abs(self.image_id) < 2**63


class Annotation(NamedTuple):
    image_id: int
    category_id: int


@dataclass(frozen=True)
class AnnotationFile:
    """What one file says. `annotations` is empty in a stripped test file."""

    name: str
    description: str
    number: int  # d of the ids
    class_names: tuple[str, ...]
    images: list[Image]
    annotations: list[Annotation]


def parse(domain: str, name: str, text: bytes) -> AnnotationFile:
    """Read one file of a domain. Raises BrokenAnnotationsError for what is not JSON or not of the official form.

    Stripped test files lack `annotations` or have an empty list; both are read alike.
    """
    try:
        document = json.loads(text.decode("utf-8-sig"), object_hook=_compact)
    except (ValueError, RecursionError) as problem:
        raise BrokenAnnotationsError(f"not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise BrokenAnnotationsError(
            f"expected an object with images and categories, found a {type(document).__name__}"
        )
    if name.endswith("_test_stripped.json") and document.get("annotations") is None:
        document["annotations"] = []
    info = document.get("info")
    names = _class_names(domain, _list(document, "categories"))
    return AnnotationFile(
        name=name,
        description=str(info.get("description", "")) if isinstance(info, dict) else "",
        number=document["categories"][0]["id"] // IDS_PER_DOMAIN,
        class_names=names,
        images=_entries(document, "images", Image, "id, width, height and file_name"),
        annotations=_entries(document, "annotations", Annotation, "image_id and category_id"),
    )


def _compact(entry: dict[str, Any]) -> Any:
    """A tuple for an image or an annotation of the official form; everything else as it is."""
    match entry:
        case {"id": int(i), "width": int(width), "height": int(height), "file_name": str(file)}:
            return Image(i, width, height, file)
        case {"image_id": int(i), "category_id": int(category)}:
            return Annotation(i, category)
    return entry


def _list(document: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(document.get(key), list):
        raise BrokenAnnotationsError(
            f"expected a list at key '{key}', found {str(document.get(key, 'no such key'))[:100]}"
        )
    return document[key]


def _entries(document: dict[str, Any], key: str, kind: type[Any], keys: str) -> list[Any]:
    entries = _list(document, key)
    for entry in entries:
        if not isinstance(entry, kind):
            raise BrokenAnnotationsError(f"expected {keys} in every entry of '{key}', found {str(entry)[:100]}")
        if isinstance(entry, Image) and not entry.is_storable:
            raise BrokenAnnotationsError(f"expected ids and sides of an image's size, found {str(entry)[:150]}")
    return entries


def _class_names(domain: str, categories: list[Any]) -> tuple[str, ...]:
    """The names of categories whose ids are d*10^7 + 1, 2, ... in this order, d being the number of this domain alone."""
    official = official_domains()
    for place, category in enumerate(categories):
        if (
            not isinstance(category, dict)
            or type(category.get("id")) is not int
            or not isinstance(category.get("name"), str)
        ):
            raise BrokenAnnotationsError(
                f"expected id and name in every entry of 'categories', found {str(category)[:100]}"
            )
        number = official[domain].number if domain in official else categories[0]["id"] // IDS_PER_DOMAIN
        expected = number * IDS_PER_DOMAIN + place + 1
        if category["id"] != expected:
            raise BrokenAnnotationsError(
                f"expected category id {expected} at place {place + 1} of 'categories', found {category['id']}"
            )
    if not categories:
        raise BrokenAnnotationsError("expected at least one entry in 'categories', found none")
    number = categories[0]["id"] // IDS_PER_DOMAIN
    taken = {other.number: other.name for other in official.values() if other.name != domain}
    if number < 1 or number in taken:
        raise BrokenAnnotationsError(
            f"expected ids of a number of its own, found those of {taken.get(number, 'no domain')}"
        )
    return tuple(category["name"] for category in categories)
