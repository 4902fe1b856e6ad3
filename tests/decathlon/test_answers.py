"""Annotation files: found in folders and archives, and checked before anything is compared with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decathlon.answers import listed, read_answers
from mtan_core.errors import UserError
from tests.decathlon.challenge import annotations, image_id, write_annotations, zip_folder


def test_labelled_files_are_preferred_to_stripped_ones_and_official_domains_come_first(tmp_path: Path) -> None:
    folder = write_annotations(
        tmp_path / "a",
        {
            "ant_test": annotations(11, [0], 1),
            "svhn_test": annotations(8, [1, 0], 2),
            "svhn_test_stripped": annotations(8, [1, 0], 2, stripped=True),
            "dtd_test_stripped": annotations(4, [0], 1, stripped=True),
            "dtd_train": annotations(4, [0, 0], 1),
        },
    )
    answers = read_answers(folder, "test")
    assert [(answer.domain, answer.number, answer.labels is None) for answer in answers] == [
        ("dtd", 4, True),
        ("svhn", 8, False),
        ("ant", 11, False),
    ]
    assert [answer.domain for answer in read_answers(folder, "test", "ant,dtd")] == ["dtd", "ant"]
    assert read_answers(folder, "val") == []


def test_an_archive_is_read_like_a_folder(tmp_path: Path) -> None:
    folder = write_annotations(tmp_path / "a", {"svhn_test": annotations(8, [1, 0], 2)})
    packed = read_answers(zip_folder(folder), "test")[0]
    assert packed.image_ids.tolist() == [image_id(8, 1), image_id(8, 2)]
    assert packed.labels is not None
    assert packed.labels.tolist() == [80000002, 80000001]


def test_labels_follow_image_ids_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    document = annotations(8, [0, 1, 2], 3)
    document["images"].reverse()
    document["annotations"] = [document["annotations"][place] for place in (1, 2, 0)]
    answer = read_answers(write_annotations(tmp_path, {"svhn_test": document}), "test")[0]
    assert answer.image_ids.tolist() == [image_id(8, place) for place in (1, 2, 3)]
    assert answer.labels is not None
    assert answer.labels.tolist() == [80000001, 80000002, 80000003]


@pytest.mark.parametrize("remove", [True, False], ids=["no key", "an empty list"])
def test_both_stripped_forms_are_read(tmp_path: Path, remove: bool) -> None:
    document = annotations(8, [0], 1, stripped=True)
    if not remove:
        document["annotations"] = []
    assert read_answers(write_annotations(tmp_path, {"svhn_test": document}), "test")[0].labels is None


def test_the_miniature_is_known_by_its_description(tmp_path: Path) -> None:
    document = annotations(8, [0], 1, description="Miniature of the Decathlon, generated")
    assert read_answers(write_annotations(tmp_path, {"svhn_test": document}), "test")[0].is_miniature


def _drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.pop(key)


def _set(table: str, key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[table][1].update({key: value})


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_drop("images"), "expected a list under 'images', found no such key"),
        (_drop("categories"), "expected a list under 'categories', found no such key"),
        (lambda d: d.update(images={"a": 1}), "expected a list under 'images'"),
        (lambda d: d.update(images=[]), "at least one entry in 'images'"),
        (lambda d: d["images"][1].pop("id"), "'images', entry 2: expected an integer under 'id'"),
        (lambda d: d["annotations"].insert(0, 5), "'annotations', entry 1: expected an integer under 'image_id'"),
        (_set("images", "id", "x"), "'images', entry 2"),
        (_set("images", "id", "7"), "'images', entry 2"),
        (_set("images", "id", 1.5), "'images', entry 2"),
        (_set("images", "id", 2**70), "'images', entry 2"),
        (_set("images", "id", image_id(8, 1)), f"each image id once, found {image_id(8, 1)}"),
        (lambda d: d["categories"].append(d["categories"][0]), "each category id once, found 80000001"),
        (_set("annotations", "category_id", 80000099), "its own 'categories', found 80000099"),
        (_set("annotations", "image_id", 3), f"images without an annotation: {image_id(8, 2)}; annotations without"),
        (lambda d: d["annotations"].append(d["annotations"][0]), f"images with several annotations: {image_id(8, 1)}"),
        (lambda d: d["annotations"].pop(), f"images without an annotation: {image_id(8, 3)}"),
    ],
    ids=range(16),
)
def test_a_harmed_file_is_refused_with_its_name_and_place(
    tmp_path: Path, harm: Callable[[dict[str, Any]], object], told: str
) -> None:
    document = annotations(8, [0, 1, 0], 2)
    harm(document)
    folder = write_annotations(tmp_path, {"svhn_test": document})
    with pytest.raises(UserError) as refusal:
        read_answers(folder, "test")
    assert str(refusal.value).startswith(f"{folder}/svhn_test.json: ")
    assert told in str(refusal.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, json.dumps("images")], ids=range(5))
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "svhn_test.json").write_text(text)
    with pytest.raises(UserError, match=r"svhn_test\.json: "):
        read_answers(tmp_path, "test")


def test_what_is_neither_folder_nor_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.zip").write_text("no archive")
    with pytest.raises(UserError, match="a folder or a zip archive"):
        read_answers(tmp_path / "labels.zip", "test")
    with pytest.raises(FileNotFoundError):
        read_answers(tmp_path / "absent", "test")


def test_a_domain_that_is_not_there_is_named_with_the_near_one(tmp_path: Path) -> None:
    folder = write_annotations(tmp_path, {"svhn_test": annotations(8, [0], 1)})
    with pytest.raises(UserError, match=r"has no domain 'svnh' \(did you mean 'svhn'\?\)"):
        read_answers(folder, "test", ["svnh"])


def test_long_lists_are_cut_and_counted() -> None:
    assert listed([1, 2]) == "1, 2"
    assert listed(list(range(2000)), most=2) == "0, 1, ... (2,000 in all)"
