"""How good a Decathlon run is, domain by domain, beside chance, and beside published rows where it may be set there."""

from collections.abc import Mapping

from decathlon.scoring import decathlon_points
from experiments.compare.comparison import Comparison, compare
from experiments.compare.measured import MEAN, SCORE, TEST_MEAN, Measured
from experiments.compare.published import Published
from experiments.compare.rendering import NONE, Table, all_notes, tables
from experiments.report import charts, parts
from experiments.report.parts import Part


def score_card(run: Measured, classes: Mapping[str, int]) -> list[Part]:
    """Accuracies on val and, where a submission was scored, on test with points; published rows beside or apart."""
    validated = {name: run.measures[name] for name in classes if name in run.measures}
    tested = {name: run.measures[f"test {name}"] for name in classes if f"test {name}" in run.measures}
    found = compare([run], published=True)
    shown: list[Part] = [parts.heading("Score card"), *_totals(run, len(validated), len(tested))]
    if validated or tested:
        shown += [parts.table(_table(classes, validated, tested)), _bars(classes, tested or validated, bool(tested))]
    if tested and not found.apart:
        shown.append(_beside(found, tested))
    if not validated:
        shown.append(parts.note("Nothing was validated (protocol train+val, imported, or no validation images)."))
    shown += [parts.note(f"{text}.", warning=bool(found.apart)) for text in all_notes(found)[-1:]]
    published = tables(found)[-1]
    return [*shown, parts.folded(published.title, [parts.table(published)])]


def _totals(run: Measured, validated: int, tested: int) -> list[Part]:
    told = []
    if MEAN in run.measures:
        told.append(f"Mean validation accuracy {run.measures[MEAN]:.1%} ({validated} domains).")
    if tested:
        told.append(
            f"Mean test accuracy {run.measures[TEST_MEAN]:.1%}, Decathlon score {run.measures[SCORE]:.0f} ({tested} domains)."
        )
    return [parts.note(text) for text in told]


def _table(classes: Mapping[str, int], validated: Mapping[str, float], tested: Mapping[str, float]) -> Table:
    points = decathlon_points({name: 1 - value for name, value in tested.items()})
    columns = ["domain", "classes", "chance", "val", *(["test", "points"] if tested else [])]
    rows = []
    for name in dict.fromkeys([*validated, *tested]):
        row = [name, str(classes[name]), f"{1 / classes[name]:.1%}", _percent(validated.get(name))]
        worth = points.get(name)
        rows.append(
            [*row, *([_percent(tested.get(name)), NONE if worth is None else f"{worth:.0f}"] if tested else [])]
        )
    return Table("Accuracy by domain", columns, rows)


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def _bars(classes: Mapping[str, int], values: Mapping[str, float], of_test: bool) -> Part:
    kind = "Test" if of_test else "Validation"
    label = f"{kind} accuracy by domain: " + ", ".join(f"{name} {value:.1%}" for name, value in values.items())
    chance = {name: 1 / classes[name] for name in values}
    return parts.figures([parts.chart(charts.bars(label, values, chance), f"{kind} accuracy; the mark is chance.")])


def _beside(found: Comparison, tested: Mapping[str, float]) -> Part:
    rows = [row for row in found.published if isinstance(row, Published)]
    others = {name: [(row.method, row.accuracy[name]) for row in rows] for name in tested}
    label = f"Test accuracy of this run by domain among {len(found.published)} published rows"
    return parts.figures([parts.chart(charts.strips(label, tested, others), f"{label}; theirs are the ticks.")])
