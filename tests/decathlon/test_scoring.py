"""The formula, its baselines, and tables of published accuracies."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlon.scoring import decathlon_points, decathlon_score, domain_points, score_accuracies
from decathlon.specs import official_domains
from mtan_core.errors import UserError

BASELINES = {name: domain.baseline_error for name, domain in official_domains().items()}
fractions = st.floats(0, 1)


@given(st.floats(0.01, 1), fractions, fractions)
def test_a_smaller_error_never_loses_points(baseline: float, a: float, b: float) -> None:
    assert 0 <= domain_points(max(a, b), baseline) <= domain_points(min(a, b), baseline) <= 1000


@given(st.floats(0.01, 0.5))
def test_a_domain_is_worth_250_points_at_its_baseline_and_none_from_twice_that(baseline: float) -> None:
    assert domain_points(baseline, baseline) == pytest.approx(250)
    assert domain_points(2 * baseline, baseline) == 0
    assert domain_points(0, baseline) == 1000


def test_the_fine_tuned_networks_score_2500_and_a_perfect_submission_10000() -> None:
    assert decathlon_score(BASELINES) == pytest.approx(2500)
    assert decathlon_score(dict.fromkeys(BASELINES, 0)) == 10_000
    assert decathlon_score(dict.fromkeys(BASELINES, 1.0)) == 0


def test_the_constants_are_those_of_the_paper() -> None:
    """alpha_d and Emax_d as tabulated for the challenge, five digits."""
    points = decathlon_points({"gtsrb": 0.0123, "ucf101": 0.5})
    assert points["gtsrb"] == pytest.approx(409775.61 * (0.0494 - 0.0123) ** 2, rel=1e-6)
    assert points["ucf101"] == pytest.approx(1049.79 * (0.976 - 0.5) ** 2, rel=1e-5)


@given(st.dictionaries(st.sampled_from(sorted(BASELINES)), fractions, min_size=1))
def test_the_score_is_the_sum_of_the_points(errors: dict[str, float]) -> None:
    points = decathlon_points(errors)
    assert list(points) == list(errors)
    assert decathlon_score(errors) == pytest.approx(math.fsum(value or 0 for value in points.values()))


def test_a_domain_without_a_baseline_has_no_points_unless_one_is_given() -> None:
    errors = {"svhn": 0.0, "leaves": 0.2}
    assert decathlon_points(errors) == {"svhn": 1000, "leaves": None}
    assert decathlon_score(errors) == 1000
    assert decathlon_score(errors, {"leaves": 0.2}) == 1250


@pytest.mark.parametrize("error", [-0.01, 1.01, math.nan, math.inf, 61.0])
def test_an_error_that_is_no_fraction_is_refused_by_name(error: float) -> None:
    with pytest.raises(UserError, match="svhn: expected an error fraction"):
        decathlon_score({"dtd": 0.1, "svhn": error})


@pytest.mark.parametrize("baseline", [0.0, -1.0, 1.5, math.nan])
def test_a_baseline_out_of_range_is_refused_by_name(baseline: float) -> None:
    with pytest.raises(UserError, match="leaves: expected a baseline"):
        decathlon_points({"leaves": 0.1}, {"leaves": baseline})


def test_a_score_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="at least one domain"):
        decathlon_score({})


@pytest.mark.shared
def test_published_accuracies_give_published_scores(shared: Path) -> None:
    """Within 5 points for accuracies of two decimals, 40 for those of one."""
    table = shared / "published_decathlon.csv"
    one_decimal = ("BA^2", "Piggyback re-implementation", "Binary masks")
    rows = [row for row in score_accuracies(table).rows if row.published is not None]
    assert len(rows) >= 32
    for row in rows:
        assert row.published is not None
        tolerance = 40 if row.method.startswith(one_decimal) else 5
        assert abs(row.score - row.published) < tolerance, row


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


HEADER = "method,params," + ",".join(BASELINES) + ",score"
FINETUNE = ",".join(f"{100 * (1 - error):.2f}" for error in BASELINES.values())


def test_a_row_scores_and_a_blank_published_score_is_unknown(tmp_path: Path) -> None:
    scores = score_accuracies(table(tmp_path / "a.csv", HEADER, f"ours,1,{FINETUNE},", f"theirs,,{FINETUNE},2500"))
    assert [(row.method, row.published) for row in scores.rows] == [("ours", None), ("theirs", 2500)]
    assert scores.rows[0].score == pytest.approx(2500)
    assert scores.notes == ()


def test_a_row_with_a_blank_cell_is_left_out_and_named(tmp_path: Path) -> None:
    blank = FINETUNE.replace("96.55", "")
    scores = score_accuracies(table(tmp_path / "a.csv", HEADER, f"partial,1,{blank},10", f"whole,1,{FINETUNE},"))
    assert [row.method for row in scores.rows] == ["whole"]
    assert scores.notes == ("partial: left out, no accuracy for svhn.",)


def test_absent_columns_make_a_score_over_a_part_and_say_so(tmp_path: Path) -> None:
    scores = score_accuracies(table(tmp_path / "a.csv", "method,svhn,dtd", "ours,100,55.53"))
    assert scores.rows[0].score == pytest.approx(1250)
    assert scores.domains == ("dtd", "svhn")
    assert "2 of 10 domains, without aircraft" in scores.notes[0]
    chosen = score_accuracies(tmp_path / "a.csv", "svhn")
    assert chosen.rows[0].score == pytest.approx(1000)


def test_spaces_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("\ufeffmethod , svhn\r\n\r\n,\r\nours, 96.55 \r\n".encode())
    assert score_accuracies(file).rows[0].score == pytest.approx(250)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["name,svhn", "a,1"], "a column 'method'"),
        (["method,mnist", "a,1"], "columns named after the domains"),
        ([""], "found nothing"),
        (
            ["method,svhn", "a,96.5 %"],
            "line 2, column 'svhn': expected an accuracy in percent from 0 to 100, found '96.5 %'",
        ),
        (["method,svhn", "a,nan"], "found 'nan'"),
        (["method,svhn", "a,50", "b,101"], "line 3, column 'svhn'"),
        (["method,svhn,score", "a,50,many"], "column 'score': expected a score"),
        (["method,svhn,svhn", "a,50,60"], "'svhn' more than once"),
        (["method,svhn", "a,50,60"], "line 2: expected 2 cells, found 3"),
        (["method,svhn", 'a,"50'], "comma-separated values"),
    ],
)
def test_a_broken_table_is_refused_with_its_place(tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(UserError, match=r"a\.csv: ") as refusal:
        score_accuracies(table(tmp_path / "a.csv", *lines))
    assert told in str(refusal.value)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"method,svhn\n\xff\xfe,3\n")
    with pytest.raises(UserError, match="UTF-8"):
        score_accuracies(tmp_path / "a.csv")
