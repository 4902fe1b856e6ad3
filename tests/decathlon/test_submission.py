"""Submissions against annotations: what is refused, what is missing, and what is scored."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlon.scoring import domain_points
from decathlon.submission import score_results, validate_results, write_results
from mtan_core.errors import UserError
from tests.decathlon.challenge import annotations, image_id, truth, write_annotations, write_entries, zip_folder

DTD = annotations(4, [0, 1, 2, 0], 3, first=11)
SVHN = annotations(8, [1, 0], 2, first=6)
SVHN_VAL = annotations(8, [0, 0, 1], 2, first=3)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write_annotations(tmp_path / "labels", {"dtd_test": DTD, "svhn_test": SVHN})


@pytest.fixture
def stripped(tmp_path: Path) -> Path:
    files = {name: {**file, "annotations": []} for name, file in (("dtd", DTD), ("svhn", SVHN))}
    named = {f"{name}_test_stripped": file for name, file in files.items()}
    return write_annotations(tmp_path / "stripped", {**named, "svhn_val": SVHN_VAL})


def test_a_perfect_submission_has_all_points(tmp_path: Path, labels: Path) -> None:
    results = write_entries(tmp_path / "results.json", truth(DTD, SVHN))
    for where in (labels, zip_folder(labels)):
        scored = score_results(results, where)
        assert scored.score == 2000
        assert {name: (d.error, d.points, d.images, d.missing) for name, d in scored.domains.items()} == {
            "dtd": (0, 1000, 4, 0),
            "svhn": (0, 1000, 2, 0),
        }
        assert scored.split == "test"


def test_errors_are_counted_over_all_images_and_missing_ones_are_errors(tmp_path: Path, labels: Path) -> None:
    entries = truth(DTD, SVHN)
    entries[1]["category_id"] = 40000001  # wrong
    del entries[0]  # missing
    scored = score_results(write_entries(tmp_path / "results.json", entries), labels)
    assert scored.domains["dtd"].error == 0.5
    assert scored.domains["dtd"].missing == 1
    assert scored.domains["dtd"].points == domain_points(0.5, 0.4447)
    assert any("count as errors: dtd 1 of 4" in note for note in scored.notes)


def test_a_domain_without_any_prediction_is_missing_unless_left_out(tmp_path: Path, labels: Path) -> None:
    results = write_entries(tmp_path / "results.json", truth(SVHN))
    scored = score_results(results, labels)
    assert (scored.domains["dtd"].error, scored.domains["dtd"].missing) == (1, 4)
    assert any("dtd all 4 of 4" in note for note in scored.notes)
    alone = score_results(results, labels, "svhn")
    assert list(alone.domains) == ["svhn"]
    assert alone.score == 1000


def test_chosen_domains_pass_over_the_predictions_for_others_only(tmp_path: Path, labels: Path) -> None:
    results = write_entries(tmp_path / "results.json", truth(DTD, SVHN))
    checked = validate_results(results, labels, ["dtd"])
    assert checked.predictions == 4
    assert f"Passed over, as not of the chosen domains: {len(truth(SVHN))} predictions." in checked.notes
    assert any(note.startswith("Passed over") for note in score_results(results, labels, ["dtd"]).notes)
    assert not any(note.startswith("Passed over") for note in validate_results(results, labels).notes)
    astray = write_entries(tmp_path / "astray.json", [*truth(DTD, SVHN), {"image_id": 17, "category_id": 40000001}])
    with pytest.raises(UserError, match="unknown image ids: 17"):
        validate_results(astray, labels, ["dtd"])


def test_the_image_ids_decide_between_test_and_val(tmp_path: Path, stripped: Path) -> None:
    test = write_entries(tmp_path / "test.json", truth(DTD, SVHN))
    assert validate_results(test, stripped).split == "test"
    practice = write_entries(tmp_path / "val.json", truth(SVHN_VAL))
    scored = score_results(practice, stripped)
    assert (scored.split, scored.score, list(scored.domains)) == ("val", 1000, ["svhn"])
    assert any("practice" in note for note in scored.notes)
    mixed = write_entries(tmp_path / "mixed.json", [*truth(SVHN_VAL), *truth(SVHN)])
    with pytest.raises(UserError, match=rf"unknown image ids: {image_id(8, 3)}, "):
        validate_results(mixed, stripped)


def test_stripped_files_validate_but_do_not_score(tmp_path: Path, stripped: Path) -> None:
    results = write_entries(tmp_path / "results.json", truth(DTD, SVHN))
    assert validate_results(results, stripped).missing == 0
    with pytest.raises(UserError, match=r"dtd_test_stripped\.json: expected labels .* 'dtd_test\.json'"):
        score_results(results, stripped)


def test_everything_wrong_is_told_at_once_with_its_ids(tmp_path: Path, labels: Path) -> None:
    entries = truth(DTD, SVHN)
    entries[0]["category_id"] = 80000001
    entries[1]["category_id"] = 40000004
    entries += [entries[4], {"image_id": 5, "category_id": 1}]
    with pytest.raises(UserError) as refusal:
        score_results(write_entries(tmp_path / "results.json", entries), labels)
    sentence = str(refusal.value)
    assert "unknown image ids: 5;" in sentence
    assert f"more than once: {image_id(8, 6)};" in sentence
    assert f"another domain: 80000001 for image {image_id(4, 11)} of dtd;" in sentence
    assert f"not in the domain's list: 40000004 for image {image_id(4, 12)} of dtd." in sentence


def test_many_offences_are_cut_and_counted(tmp_path: Path, labels: Path) -> None:
    entries = [{"image_id": -i, "category_id": 1} for i in range(1, 2001)]
    with pytest.raises(UserError, match=r"-1991, \.\.\. \(2,000 in all\)"):
        validate_results(write_entries(tmp_path / "results.json", entries), labels)


def test_predictions_for_a_domain_without_annotations_say_so(tmp_path: Path, labels: Path) -> None:
    entries = [*truth(DTD, SVHN), {"image_id": image_id(5, 1), "category_id": 50000001}]
    with pytest.raises(UserError, match=r"has no test file of gtsrb; --domains"):
        validate_results(write_entries(tmp_path / "results.json", entries), labels)


def test_strict_refuses_missing_images_by_id(tmp_path: Path, labels: Path) -> None:
    results = write_entries(tmp_path / "results.json", truth(DTD, SVHN)[1:])
    assert validate_results(results, labels).missing == 1
    with pytest.raises(UserError, match=f"missing are dtd: {image_id(4, 11)}"):
        validate_results(results, labels, strict=True)
    assert validate_results(results, labels, "svhn", strict=True).missing == 0


def test_an_empty_list_is_a_submission_in_which_all_is_missing(tmp_path: Path, labels: Path) -> None:
    results = write_entries(tmp_path / "results.json", [])
    assert validate_results(results, labels).missing == 6
    assert score_results(results, labels).score == 0


def test_an_image_id_in_two_annotation_files_is_refused(tmp_path: Path) -> None:
    folder = write_annotations(tmp_path / "a", {"dtd_test": DTD, "svhn_test": annotations(4, [0], 1, first=12)})
    with pytest.raises(UserError, match=f"found {image_id(4, 12)} in both"):
        validate_results(write_entries(tmp_path / "results.json", []), folder)


def test_a_folder_without_annotation_files_points_to_those_inside(tmp_path: Path, labels: Path) -> None:
    labels.rename(tmp_path / "annotations")
    results = write_entries(tmp_path / "results.json", [])
    with pytest.raises(UserError, match=r"found none \(there is .*annotations\)"):
        validate_results(results, tmp_path)


def test_a_domain_of_ones_own_is_scored_without_points(tmp_path: Path) -> None:
    leaves = annotations(11, [0, 1], 2)
    folder = write_annotations(tmp_path / "a", {"leaves_test": leaves, "svhn_test": SVHN})
    results = write_entries(tmp_path / "results.json", truth(leaves, SVHN))
    scored = score_results(results, folder)
    assert (scored.domains["leaves"].error, scored.domains["leaves"].points) == (0, None)
    assert scored.score == 1000
    assert "leaves has no baseline error, and so no points." in scored.notes
    assert score_results(results, folder, baselines={"leaves": 0.3}).score == 2000


def test_scores_that_are_not_comparable_say_so(tmp_path: Path, labels: Path) -> None:
    results = write_entries(tmp_path / "results.json", truth(DTD, SVHN))
    notes = " ".join(score_results(results, labels).notes)
    assert "2 of 10 domains, without aircraft" in notes
    assert "dtd has 4 images, not 1,880): the score is not comparable" in notes
    miniature = {**SVHN, "info": {"description": "Miniature of the Visual Decathlon"}}
    folder = write_annotations(tmp_path / "mini", {"dtd_test": DTD, "svhn_test": miniature})
    assert "miniature: the score is not comparable" in " ".join(score_results(results, folder).notes)


@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_entries_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, guesses: list[int], order: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("order")
    labels = write_annotations(folder / "labels", {"dtd_test": DTD})
    entries = truth(DTD)
    for entry, guess in zip(entries, guesses, strict=True):
        entry["category_id"] = 40000001 + guess
    order.shuffle(entries)
    scored = score_results(write_entries(folder / "results.json", entries), labels)
    assert scored.domains["dtd"].error == sum(g != t for g, t in zip(guesses, [0, 1, 2, 0], strict=True)) / 4


@pytest.mark.shared
def test_the_official_labels_score_themselves_with_ten_thousand(tmp_path: Path, shared: Path) -> None:
    from decathlon.answers import read_answers

    official = shared / "official" / "labels_test.zip"
    answers = read_answers(official, "test")
    images = [image for answer in answers for image in answer.image_ids]
    labels = [label for answer in answers if answer.labels is not None for label in answer.labels]
    assert len(images) == 139_760
    write_results(tmp_path / "results.json", images, labels)
    scored = score_results(tmp_path / "results.json", official)
    assert scored.score == 10_000
    assert scored.notes == ()


@pytest.mark.shared
def test_the_real_stripped_files_validate_predictions_for_the_labelled_ones(tmp_path: Path, shared: Path) -> None:
    from decathlon.answers import read_answers

    root = shared / "decathlon-mini-dev"
    answers = read_answers(root / "annotations_hidden", "test")
    firsts = [(image, answer.category_ids[0]) for answer in answers for image in answer.image_ids]
    write_results(tmp_path / "results.json", *zip(*firsts, strict=True))
    assert validate_results(tmp_path / "results.json", root / "annotations", strict=True).missing == 0
    scored = score_results(tmp_path / "results.json", root / "annotations_hidden")
    assert all(0 < domain.error < 1 for domain in scored.domains.values())
    assert any("not comparable" in note for note in scored.notes)
