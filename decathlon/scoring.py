"""The Decathlon score (Rebuffi, Bilen, Vedaldi 2017), from error fractions or from a table of published accuracies.

``S = sum_d alpha_d * max(0, Emax_d - E_d)^2`` with ``Emax_d`` twice the error of the challenge's fine-tuned network and
``alpha_d = 1000 / Emax_d^2``: a domain is worth 250 points at the baseline's error, 1000 without errors, 0 from twice the
baseline's error up; ten baselines score 2500, a perfect submission 10,000. The paper does not say what becomes of an error
above ``Emax_d``; public scorers give it 0 points, and so does this.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlon.specs import choose_domains, official_domains
from mtan_core.errors import UserError


def domain_points(error: float, baseline_error: float) -> float:
    """Points in [0, 1000] for a test error, both as fractions."""
    worst = 2 * baseline_error
    return 1000 * (max(0.0, worst - error) / worst) ** 2


def decathlon_points(
    errors: Mapping[str, float], baselines: Mapping[str, float] | None = None
) -> dict[str, float | None]:
    """Points of each domain of `errors` (error fractions); None for a domain without a baseline.

    `baselines` (error fractions) adds to the ten official ones or replaces them.
    Raises UserError for an error or a baseline that is not a fraction, naming the domain.
    """
    known = {name: domain.baseline_error for name, domain in official_domains().items()} | dict(baselines or {})
    for name, baseline in known.items():
        if not 0 < baseline <= 1:
            raise UserError(f"{name}: expected a baseline error in (0, 1], found {baseline}.")
    checked = {name: _fraction(name, error) for name, error in errors.items()}
    return {name: domain_points(error, known[name]) if name in known else None for name, error in checked.items()}


def decathlon_score(errors: Mapping[str, float], baselines: Mapping[str, float] | None = None) -> float:
    """The score of ``{domain: test error fraction}``: the sum of `decathlon_points` over the domains that have a baseline.

    With fewer than the ten official domains it is the score over that part.
    Raises UserError for no domain at all, and as `decathlon_points` does.
    """
    if not errors:
        raise UserError("A Decathlon score needs the error of at least one domain, found none.")
    return math.fsum(points for points in decathlon_points(errors, baselines).values() if points is not None)


def _fraction(name: str, error: float) -> float:
    value = float(error)
    if not 0 <= value <= 1:  # NaN too
        raise UserError(f"{name}: expected an error fraction from 0 to 1, found {value}.")
    return value


@dataclass(frozen=True)
class PublishedRow:
    """One row of a table of accuracies: what the formula gives, beside what was published (None: not known)."""

    method: str
    score: float
    published: float | None

    def to_dict(self) -> dict[str, str | float | None]:
        return {"method": self.method, "score": self.score, "published": self.published}


@dataclass(frozen=True)
class PublishedScores:
    """The scores of a table of accuracies, the domains that they are summed over, and what is to be said of them."""

    rows: tuple[PublishedRow, ...]
    domains: tuple[str, ...]
    notes: tuple[str, ...]


def score_accuracies(path: Path, domains: str | Iterable[str] | None = None) -> PublishedScores:
    """Score a CSV with a column ``method`` and one column per domain, accuracies in percent.

    A column ``score`` is the published score (blank: unknown); other columns are not looked at. A domain that has no column
    is left out of every row's score, and a row with a blank cell is left out whole; both are said in `notes`.
    Raises UserError for a table without these columns and for a cell that is no percentage, with line and column.
    """
    header, lines = _read_table(path)
    official = list(official_domains())
    present = [name for name in official if name in header]
    if "method" not in header or not present:
        raise UserError(
            f"{path}: expected a column 'method' and columns named after the domains ({', '.join(official)}), "
            f"found {', '.join(header) or 'nothing'}."
        )
    chosen = choose_domains(domains, present, str(path))
    rows, notes = [], _part_notes(chosen, official)
    for number, line in lines:
        blank = [name for name in chosen if not line[name].strip()]
        if blank:
            notes.append(f"{line['method']}: left out, no accuracy for {', '.join(blank)}.")
            continue
        rows.append(_score_row(path, number, line, chosen))
    return PublishedScores(tuple(rows), tuple(chosen), tuple(notes))


def _part_notes(chosen: Sequence[str], official: Sequence[str]) -> list[str]:
    absent = [name for name in official if name not in chosen]
    if not absent:
        return []
    return [
        f"The scores are over {len(chosen)} of {len(official)} domains, without {', '.join(absent)}; the published ones are not."
    ]


def _score_row(path: Path, number: int, line: Mapping[str, str], chosen: Sequence[str]) -> PublishedRow:
    accuracies = {name: _number(path, number, name, line[name], 100.0) for name in chosen}
    if max(accuracies.values()) <= 1:
        raise UserError(f"{path}: line {number}: expected accuracies in percent, found none over 1.")
    published = line.get("score", "").strip()
    return PublishedRow(
        line["method"],
        decathlon_score({name: 1 - percent / 100 for name, percent in accuracies.items()}),
        _number(path, number, "score", published, 10_000.0) if published else None,
    )


def _number(path: Path, line: int, column: str, text: str, largest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= largest:
        what = "an accuracy in percent" if largest == 100 else "a score"
        raise UserError(
            f"{path}: line {line}, column '{column}': expected {what} from 0 to {largest:g}, found '{text}'."
        )
    return value


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and rows (line number, cell by column) of a CSV; rows without any text are passed over."""
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise UserError(f"{path}: expected a table of comma-separated values in UTF-8, found {problem}.") from None
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{path}: expected each column once, found '{twice[0]}' more than once.")
    for number, cells in rows:
        if len(cells) != len(header):
            raise UserError(f"{path}: line {number}: expected {len(header)} cells, found {len(cells)}.")
    return header, [(number, dict(zip(header, cells, strict=True))) for number, cells in rows]
