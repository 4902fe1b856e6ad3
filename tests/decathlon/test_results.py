"""results.json: what is written can be read, and what cannot be read is told in one sentence."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlon import results
from decathlon.results import read_results, write_results, zip_results
from mtan_core.errors import UserError

GOOD = '{"image_id": 10206668, "category_id": 10000001}'


def test_the_written_file_has_exactly_the_official_form(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, np.array([10206668, 10206669]), np.array([10000001, 10000100]))
    assert json.loads(path.read_text()) == [
        {"image_id": 10206668, "category_id": 10000001},
        {"image_id": 10206669, "category_id": 10000100},
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_ids_without_categories_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        write_results(tmp_path / "results.json", [1, 2], [3])
    assert list(tmp_path.iterdir()) == []


ids = st.integers(-(2**63), 2**63 - 1)


@given(pairs=st.lists(st.tuples(ids, ids), max_size=20), indent=st.sampled_from([None, 2]), swapped=st.booleans())
def test_any_entries_are_read_back_however_they_are_laid_out(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], indent: int | None, swapped: bool
) -> None:
    path = tmp_path_factory.mktemp("r") / "results.json"
    entries = [{"image_id": image, "category_id": category} for image, category in pairs]
    if swapped:
        entries = [dict(reversed(entry.items())) for entry in entries]
    path.write_text(json.dumps(entries, indent=indent))
    read = read_results(path)
    assert list(zip(read.image_ids.tolist(), read.category_ids.tolist(), strict=True)) == pairs


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
def test_every_unicode_form_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(f" [\n{GOOD} ]\n".encode(encoding))
    assert read_results(path).image_ids.tolist() == [10206668]


def test_the_archive_holds_results_json_and_is_the_same_every_time(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write_results(path, [1, 2], [3, 4])
    packed = zip_results(path)
    first = packed.read_bytes()
    assert packed == tmp_path / "mine.zip"
    assert zipfile.ZipFile(packed).namelist() == ["results.json"]
    assert zip_results(path).read_bytes() == first
    assert read_results(packed).category_ids.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "an empty file"),
        (" \n", "an empty file"),
        ("hello", "expected a list of"),
        ('{"image_id": 1}', "found an object"),
        ("12", "found '12'"),
        ("null", "found 'null'"),
        (f"[{GOOD}, 7]", "entry 2: expected"),
        (f"[{GOOD}, null]", "found null"),
        (f"[{GOOD}, [1, 2]]", "entry 2: expected"),
        (f"[{GOOD}, {{}}]", "found {}"),
        ('[{"image_id": 1}]', 'entry 1: expected {"image_id": integer, "category_id": integer}, found {"image_id": 1}'),
        ('[{"image_id": 1, "category_id": 2, "score": 1}]', '"score": 1'),
        ('[{"image_id": 1, "image_id": 2}]', '"image_id": 2'),
        ('[{"image_id": 1, "category": 2}]', '"category": 2'),
        ('[{"image_id": "1", "category_id": 2}]', '"image_id": "1"'),
        ('[{"image_id": 1.0, "category_id": 2}]', '"image_id": 1.0'),
        ('[{"image_id": 1, "category_id": true}]', '"category_id": true'),
        ('[{"image_id": 1, "category_id": NaN}]', '"category_id": NaN'),
        ('[{"image_id": 1, "category_id": null}]', '"category_id": null'),
        ('[{"image_id": 1, "category_id": [[1]]}]', '"category_id": [...]'),
        ('[{"image_id": 1, "category_id": {"a": 1}}]', '"category_id": {...}'),
        ('[{"image_id": 1, "category_id": 9223372036854775808}]', "9223372036854775808"),
        (f'[{{"image_id": 1, "category_id": {"9" * 5000}}}]', "too many digits"),
        (f"[{GOOD}, {GOOD[:-5]}", "entry 2 cannot be read as JSON"),
        (f"[{GOOD}, {GOOD}", "after entry 2: expected ',' or the list's closing ']', found the end of the file"),
        (f"[{GOOD},]", "entry 2 cannot be read"),
        (f"[{GOOD} {GOOD}]", "after entry 1"),
        (f"[{GOOD}] []", "nothing after the list"),
        ("[" * 200_000, "nested too deeply"),
        ('[{"a":' * 100_000, "nested too deeply"),
    ],
    ids=range(30),
)
def test_what_is_no_list_of_predictions_is_refused_by_its_first_bad_entry(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        read_results(path)
    sentence = str(refusal.value)
    assert sentence.startswith(f"{path}: ")
    assert told in sentence
    assert "\n" not in sentence
    assert len(sentence) < len(str(path)) + 400


def test_a_file_cut_off_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, range(100), range(100))
    path.write_text(path.read_text()[:-9])
    with pytest.raises(UserError, match=r"entry 100 cannot be read .* cut off"):
        read_results(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"[\xff\xff]")
    with pytest.raises(UserError, match="no text"):
        read_results(path)


def test_more_bytes_than_any_submission_has_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "LARGEST", 2**20)
    path = tmp_path / "results.json"
    path.write_text("[" + " " * 2**20 + "]")
    with pytest.raises(UserError, match="at most 1 MB"):
        read_results(path)
    with pytest.raises(UserError, match="at most 1 MB"):
        read_results(zip_results(path))


def test_archives_without_readable_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/results.json", f"[{GOOD}]")
    with pytest.raises(UserError, match=r"'results.json' at its top, it holds folder/results\.json"):
        read_results(path)
    path.write_text(f"[{GOOD}]")
    with pytest.raises(UserError, match="cannot be read as a zip archive"):
        read_results(path)
    write_results(tmp_path / "results.json", range(1000), range(1000))
    data = bytearray(zip_results(tmp_path / "results.json").read_bytes())
    data[100:400] = bytes(300)
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read as a zip archive"):
        read_results(path)


def test_an_archive_is_known_by_its_bytes(tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", [5], [6])
    renamed = zip_results(tmp_path / "results.json").rename(tmp_path / "submission")
    assert read_results(renamed).image_ids.tolist() == [5]
