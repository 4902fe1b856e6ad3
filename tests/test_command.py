"""The command as a script sees it: exit codes, what goes to which stream, and the sentences for mistakes."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from decathlon.submission import zip_results
from tests.conftest import Mtan, Outcome
from tests.decathlon.challenge import annotations, truth, write_annotations, write_entries

DTD = annotations(4, [0, 1, 2, 0], 3, first=11, description="Miniature of the Visual Decathlon")
SVHN = annotations(8, [1, 0], 2, first=6)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write_annotations(tmp_path / "labels", {"dtd_test": DTD, "svhn_test": SVHN})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_entries(tmp_path / "results.json", truth(DTD, SVHN)[1:])


def refused(outcome: Outcome, *told: str) -> None:
    """Exit code 2, nothing on standard output, and one sentence that starts with the command's name."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("mtan: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith(".\n")
    for words in told:
        assert words in outcome.err


def test_score_prints_one_json_document_and_its_notes_elsewhere(mtan: Mtan, results: Path, labels: Path) -> None:
    outcome = mtan("decathlon", "score", results, "--annotations", labels, "--json")
    assert outcome.code == 0
    document = json.loads(outcome.out)
    assert set(document) == {"score", "domains"}
    assert document["domains"]["svhn"] == {"error": 0, "points": 1000, "images": 2, "missing": 0}
    assert document["domains"]["dtd"]["missing"] == 1
    assert document["score"] == sum(domain["points"] for domain in document["domains"].values())
    assert "not comparable with published ones" in outcome.err


def test_score_prints_a_table_with_its_notes(mtan: Mtan, results: Path, labels: Path) -> None:
    outcome = mtan("decathlon", "score", zip_results(results), "--annotations", labels, "--domains", "svhn")
    assert outcome.code == 0
    assert "svhn" in outcome.out
    assert "1000.0" in outcome.out
    assert "dtd" not in outcome.out.split("without")[0]
    assert "1 of 10 domains" in outcome.out
    assert outcome.err == ""


def test_validate_counts_missing_images_and_refuses_them_if_strict(mtan: Mtan, results: Path, labels: Path) -> None:
    outcome = mtan("decathlon", "validate", results, "--annotations", labels, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == {
        "valid": True,
        "split": "test",
        "predictions": 5,
        "domains": {"dtd": {"images": 4, "missing": 1}, "svhn": {"images": 2, "missing": 0}},
    }
    assert "dtd 1 of 4" in outcome.err
    table = mtan("decathlon", "validate", results, "--annotations", labels)
    assert (table.code, table.err) == (0, "")
    assert "Valid: 5 predictions" in table.out
    refused(mtan("decathlon", "validate", results, "--annotations", labels, "--strict"), "missing are dtd: 40200011")


def test_score_of_accuracies_lists_methods(mtan: Mtan, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("method,svhn,score\nbaseline,96.55,250\nmine,100,\nhalf,,\n")
    outcome = mtan("decathlon", "score", "--accuracies", table, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == [
        {"method": "baseline", "score": pytest.approx(250), "published": 250},
        {"method": "mine", "score": 1000, "published": None},
    ]
    assert "half: left out, no accuracy for svhn." in outcome.err
    shown = mtan("decathlon", "score", "--accuracies", table)
    assert (shown.code, shown.err) == (0, "")
    assert "baseline" in shown.out
    assert "half: left out" in shown.out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "an empty file"),
        ("not json", "expected a list"),
        ("{}", "found an object"),
        ('[{"image_id": "40200011", "category_id": 40000001}]', 'entry 1: expected {"image_id": integer'),
        ('[{"image_id": 40200011, "category_id": NaN}]', "NaN"),
        ('[{"image_id": 40200011, "category_id": 80000001}]', "another domain: 80000001 for image 40200011"),
        ('[{"image_id": 40200011, "category_id": 40000009}]', "not in the domain's list: 40000009 for image 40200011"),
        ('[{"image_id": 1, "category_id": 40000001}]', "unknown image ids: 1"),
        ("[" + ", ".join(['{"image_id": 40200011, "category_id": 40000001}'] * 2) + "]", "more than once: 40200011"),
        ('[{"image_id": 40200011, "categ', "cut off"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("command", ["validate", "score"])
def test_a_bad_submission_is_refused(
    mtan: Mtan, tmp_path: Path, labels: Path, command: str, text: str, told: str
) -> None:
    results = tmp_path / "results.json"
    results.write_text(text)
    refused(mtan("decathlon", command, results, "--annotations", labels, "--json"), str(results), told)
    assert results.read_text() == text


def test_a_million_extra_rows_are_refused(mtan: Mtan, tmp_path: Path, labels: Path) -> None:
    row = '{"image_id": 40299999, "category_id": 40000001}, '
    results = tmp_path / "results.json"
    results.write_text("[" + row * 10**6 + row[:-2] + "]")
    refused(mtan("decathlon", "score", results, "--annotations", labels), "unknown image ids: 40299999.")


def test_mistakes_about_files_and_options_are_one_sentence(
    mtan: Mtan, tmp_path: Path, results: Path, labels: Path
) -> None:
    absent = tmp_path / "absent"
    refused(mtan("decathlon", "score", absent, "--annotations", labels), "absent")
    refused(mtan("decathlon", "score", results, "--annotations", absent), "absent")
    refused(mtan("decathlon", "score", labels, "--annotations", labels), "labels")
    refused(mtan("decathlon", "score", "--accuracies", absent), "absent")
    refused(mtan("decathlon", "score", results), "expected RESULTS with --annotations")
    refused(mtan("decathlon", "score", results, "--accuracies", absent), "found both")
    refused(mtan("decathlon", "score", results, "--annotations", labels, "--domains", "svnh"), "did you mean 'svhn'?")
    refused(mtan("decathlon", "score", results, "--annotations", labels, "--domains", "svhn,svhn"), "each domain once")
    (labels / "svhn_test.json").write_text('{"categories": []}')
    refused(mtan("decathlon", "score", results, "--annotations", labels), "svhn_test.json")


def test_a_baseline_gives_points_to_a_domain_of_ones_own(mtan: Mtan, tmp_path: Path) -> None:
    leaves = annotations(11, [0, 1], 2)
    labels = write_annotations(tmp_path / "labels", {"leaves_test": leaves})
    words = ("decathlon", "score", write_entries(tmp_path / "r.json", truth(leaves)), "--annotations", labels, "--json")
    assert json.loads(mtan(*words).out)["domains"]["leaves"]["points"] is None
    assert json.loads(mtan(*words, "--baseline", "leaves=0.25").out)["score"] == 1000
    refused(mtan(*words, "--baseline", "leaves"), "expected NAME=ERROR")
    refused(mtan(*words, "--baseline", "leafs=0.25"), "did you mean 'leaves'?")
    refused(mtan(*words, "--baseline", "svhn=0.25"), "a scored domain that is not official, found 'svhn'")
    refused(mtan(*words, "--baseline", "leaves=25"), "leaves: expected a baseline error in (0, 1], found 25.0")


def test_the_version_is_the_installed_one(mtan: Mtan) -> None:
    outcome = mtan("--version")
    assert (outcome.code, outcome.out) == (0, f"mtan {version('mtan-decathlon')}\n")


@pytest.mark.parametrize("words", [[], ["decathlon"], ["experiments"], ["experiments", "bench"]], ids=" ".join)
def test_without_a_command_it_shows_what_there_is(mtan: Mtan, words: list[str]) -> None:
    outcome = mtan(*words)
    assert outcome.code == 2
    assert re.search(r"Usage: .*\bmtan\b", outcome.out + outcome.err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("decathlon score --anotations x", "No such option: --anotations"),
        ("decathlon validate", "Missing argument 'RESULTS' (see `mtan decathlon validate --help`)"),
        ("decathlon validate results.json", "Missing option '--annotations'"),
        ("decathlon scores", "No such command 'scores'. Did you mean 'score'"),
        ("nonsense", "No such command 'nonsense'"),
        ("decathlon score --domains", "Option '--domains' requires an argument"),
        ("decathlon miniature x --seed abc", "Invalid value for '--seed'"),
        ("dense train --data x --run y --config nothere.toml", "file 'nothere.toml' does not exist"),
    ],
)
def test_a_mistyped_command_line_ends_in_one_line_and_exit_code_2(mtan: Mtan, words: str, said: str) -> None:
    refused(mtan(*words.split()), said)


def test_the_installed_command_answers(results: Path, labels: Path) -> None:
    command = Path(sys.executable).with_name("mtan")
    words = [str(word) for word in (command, "decathlon", "score", results, "--annotations", labels, "--json")]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert set(json.loads(run.stdout)["domains"]) == {"dtd", "svhn"}


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_told_without_a_traceback(results: Path, labels: Path) -> None:
    command = Path(sys.executable).with_name("mtan")
    with Path("/dev/full").open("w") as full:
        words = [str(word) for word in (command, "decathlon", "score", results, "--annotations", labels, "--json")]
        run = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 2
    assert "No space left on device" in run.stderr
    assert "Traceback" not in run.stderr
