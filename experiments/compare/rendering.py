"""A comparison as tables: for the terminal, Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.compare.comparison import Comparison, Group
from experiments.compare.measured import MEAN, SCORE, TEST_MEAN
from experiments.compare.published import Published, PublishedDense
from experiments.compare.statistics import said

NONE = "-"
COLUMNS = 4  # groups side by side in a terminal


@dataclass(frozen=True)
class Table:
    """Words and numbers in rows; the first column is text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(found: Comparison, wide: bool = True) -> list[Table]:
    """A row per group; a row per measure; published rows, with their domains where there is room for a `wide` table."""
    made = [_groups(found), _measures(found)]
    if found.published:
        made.append(_published(found, wide))
    return [table for table in made if table.rows]


def letter(place: int) -> str:
    """A, B, ..., Z, AA, ...: what groups are called where their names are too long."""
    return (letter(place // 26 - 1) if place >= 26 else "") + chr(65 + place % 26)


def _groups(found: Comparison) -> Table:
    """Beside comparable runs stand the published rows."""
    last = ["Delta-MTL"] if found.kind == "dense" else [*_results(found), f"delta of {found.headline}", "p"]
    rows = [
        [f"{letter(place)}: {group.name}", *_cost(group), *_result(found, group)]
        for place, group in enumerate(found.groups)
    ]
    if found.published and not found.apart:
        rows += [
            [row.method, NONE, f"{row.parameters or NONE} x", NONE, *_published_results(found, row), NONE, NONE]
            for row in found.published
            if isinstance(row, Published)
        ]
    return Table(f"Beside {found.reference.name}", ["runs", "seeds", "parameters", "minutes", *last], rows)


def _results(found: Comparison) -> list[str]:
    """The measures of Decathlon runs that a short table shows; those of test where there are any."""
    tested = [TEST_MEAN, SCORE] if TEST_MEAN in found.measures or (found.published and not found.apart) else []
    return [*([MEAN] if MEAN in found.measures or not tested else []), *tested]


def _published_results(found: Comparison, row: Published) -> list[str]:
    values = {TEST_MEAN: f"{row.mean:.3f}", SCORE: f"{row.score:.0f}"}
    return [values.get(name, NONE) for name in _results(found)]


def _cost(group: Group) -> list[str]:
    parameters, minutes = group.first.parameters, group.minutes
    return [
        str(len(group.runs)),
        NONE if parameters is None else f"{parameters:,}",
        f"{minutes.mean:.1f}" if minutes else NONE,
    ]


def _result(found: Comparison, group: Group) -> list[str]:
    if found.kind == "dense":
        delta = found.delta_mtl(group)
        return [NONE if delta is None else f"{delta:+.1%}"]
    difference = found.difference(group, found.headline)
    return [
        *(measure(group, name) for name in _results(found)),
        f"{difference.delta:+.3f}" if difference else NONE,
        p_value(difference.p) if difference and difference.p is not None else NONE,
    ]


def measure(group: Group, name: str) -> str:
    """Mean and spread of a measure, or a dash."""
    sample = group.sample(name)
    return said(sample.values, 0 if name == SCORE else 3) if sample else NONE


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _measures(found: Comparison) -> Table:
    columns = [
        "validation" + (" and test" if TEST_MEAN in found.measures else ""),
        *(letter(place) for place in range(len(found.groups))),
    ]
    rows = [[name, *(_cell(found, group, name) for group in found.groups)] for name in found.measures]
    return Table("By domain" if found.kind == "decathlon" else "By task and measure", columns, rows)


def _cell(found: Comparison, group: Group, name: str) -> str:
    """Of dense runs, the main measures carry their p, as there is no single mean to test."""
    shown = measure(group, name)
    difference = found.difference(group, name) if found.kind == "dense" and name in group.first.main else None
    return f"{shown} (p {p_value(difference.p)})" if difference and difference.p is not None else shown


def _published(found: Comparison, wide: bool) -> Table:
    apart = ": NOT COMPARABLE with the runs above" if found.apart else ""
    dense = [row for row in found.published if isinstance(row, PublishedDense)]
    return _published_dense(dense, wide, apart) if dense else _published_decathlon(found, wide, apart)


def _published_dense(rows: Sequence[PublishedDense], wide: bool, apart: str) -> Table:
    """In a narrow table each task's first measure alone."""
    names = list(rows[0].measures)
    tasks = [name.partition("/")[0] for name in names]
    shown = [name for place, name in enumerate(names) if wide or tasks[place] not in tasks[:place]]
    content = [
        [f"{row.method} {row.weighting}", row.parameters or NONE, *(f"{row.measures[name]:.4g}" for name in shown)]
        for row in rows
    ]
    return Table(f"Published, validation{apart}", ["method", "parameters (x single)", *shown], content)


def _published_decathlon(found: Comparison, wide: bool, apart: str) -> Table:
    published = [row for row in found.published if isinstance(row, Published)]
    domains = list(published[0].accuracy) if wide else []
    title = f"Published, test, protocol train+val{apart}"
    rows = [
        [
            row.method, row.parameters or NONE, *(f"{row.accuracy[name]:.3f}" for name in domains),
            f"{row.mean:.3f}", f"{row.score:.0f}",
        ]
        for row in published
    ]  # fmt: skip
    return Table(title, ["method", "parameters (x single)", *domains, "mean", "score"], rows)


def to_markdown(found: Comparison) -> str:
    parts = []
    for table in tables(found):
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
        lines = [f"| {' | '.join(row)} |" for row in escaped]
        lines.insert(1, f"| --- |{' ---: |' * (len(table.columns) - 1)}")
        parts.append("\n".join([f"{table.title}", "", *lines]))
    parts.append("\n".join(f"- {note}" for note in all_notes(found)))
    return "\n\n".join(parts) + "\n"


def to_csv(found: Comparison) -> str:
    """One line per group and measure, full precision; published rows are marked whether they are comparable."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "group",
            "measure",
            "n",
            "mean",
            "spread",
            "delta",
            "p",
            "parameters",
            "seconds",
            "split",
            "comparable",
            "metric",
        ]
    )
    for group in found.groups:
        minutes = group.minutes
        for name in group.first.measures:
            sample, difference = group.sample(name), found.difference(group, name)
            if sample:
                writer.writerow([
                    group.name, name, len(sample.values), sample.mean, sample.spread,
                    difference.delta if difference else None, difference.p if difference else None,
                    group.first.parameters, minutes.mean * 60 if minutes else None,
                    "test" if name == SCORE or name.startswith("test ") else "val", not found.unlike(group),
                    group.first.data.get("metric"),
                ])  # fmt: skip
    for row in found.published:
        for name, value in _published_values(row).items():
            called, split = (
                (row.method, "test") if isinstance(row, Published) else (f"{row.method} {row.weighting}", "val")
            )
            writer.writerow([called, name, None, value, None, None, None, None, None, split, not found.apart])
    return text.getvalue()


def _published_values(row: Published | PublishedDense) -> dict[str, float]:
    if isinstance(row, PublishedDense):
        return row.measures
    tests = {f"test {name}": value for name, value in row.accuracy.items()}
    return {TEST_MEAN: row.mean, **tests, SCORE: row.score}


def to_latex(found: Comparison) -> str:
    """`tabular` environments that need no package; notes as comments."""
    parts = []
    for table in tables(found):
        lines = [" & ".join(map(latex_text, row)) + r" \\" for row in (table.columns, *table.rows)]
        body = [r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"]
        begin = f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}"
        parts.append("\n".join([f"% {table.title}", begin, *body, r"\end{tabular}"]))
    parts.append("\n".join(f"% {note}" for note in all_notes(found)))
    return "\n\n".join(parts) + "\n"


_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": "$<$", "^": r"\^{}", **{c: f"\\{c}" for c in "&%$#_{}"}}


def latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def all_notes(found: Comparison) -> list[str]:
    """The comparison's notes, and why published rows stand apart."""
    notes = found.notes()
    if found.apart:
        more = f" (and {len(found.apart) - 2} more reasons)" if len(found.apart) > 2 else ""
        notes.append("published rows are not comparable: " + "; ".join(found.apart[:2]) + more)
    elif found.published and TEST_MEAN not in found.measures:
        notes.append("published numbers are of test; with --annotations these runs' submissions stand beside them")
    return notes


def _narrow(table: Table) -> list[Table]:
    """A table of many columns as several of few, which fit a terminal."""
    places = range(1, len(table.columns), COLUMNS)
    return [
        Table(table.title, [table.columns[0], *table.columns[place : place + COLUMNS]],
              [[row[0], *row[place : place + COLUMNS]] for row in table.rows])
        for place in places
    ]  # fmt: skip


def print_comparison(found: Comparison) -> None:
    from mtan_core.tables import print_table

    for table in tables(found, wide=False):
        for part in _narrow(table) if table.title.startswith("By ") else [table]:
            print_table(part.title, part.columns, part.rows)
    for note in all_notes(found):
        print(f"Note: {note}.")
