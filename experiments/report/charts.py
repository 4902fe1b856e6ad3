"""Charts as inline SVG, whose colours are those of the page, light or dark."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

COLOURS, DASHES = 7, ("", "5 3", "1.5 2.5")
Points = Sequence[tuple[float, float]]


class Pen(NamedTuple):
    """How a line looks: one of the page's colours, its width, and its dashes."""

    colour: str = "var(--c0)"
    width: float = 1.8
    dash: str = ""

    @property
    def line(self) -> str:
        dashes = f' stroke-dasharray="{self.dash}"' if self.dash else ""
        return f'stroke="{self.colour}" fill="none" stroke-width="{self.width}"{dashes}'


def pen(place: int) -> Pen:
    """What tells the line of a series from the others."""
    return Pen(f"var(--c{place % COLOURS})", dash=DASHES[place // COLOURS % len(DASHES)])


def svg(width: float, height: float, label: str, body: Sequence[str]) -> Markup:
    inside, size = "".join(body), f"max-width: {1.3 * width:g}px; --least: {0.8 * width:g}px"
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" style="{size}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{inside}</svg>"
    )


def bars(label: str, values: Mapping[str, float], marks: Mapping[str, float] | None = None) -> Markup:
    """Horizontal bars of fractions; a mark (chance, for one) is a line across its bar."""
    left, width, row = 118, 250, 22
    body = []
    for place, (name, value) in enumerate(values.items()):
        top = place * row
        mark = (marks or {}).get(name)
        body.append(
            f'<text x="{left - 6}" y="{top + 15}" text-anchor="end">{escape(_short(name))}<title>{escape(name)}</title></text>'
            f'<rect x="{left}" y="{top + 4}" width="{width * value:.1f}" height="14" fill="var(--c0)"/>'
            f'<text x="{left + width * value + 5:.1f}" y="{top + 15}">{value:.1%}</text>'
        )
        if mark is not None:
            x = left + width * mark
            body.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + 2}" y2="{top + 20}" stroke="var(--c1)" stroke-width="2"/>'
            )
    return svg(left + width + 50, len(values) * row + 4, label, body)


def lines(label: str, series: Mapping[str, Points], pens: Mapping[str, Pen] | None = None) -> Markup:
    """Lines over epochs; the series' place decides its colour and dashes, unless `pens` do. Zero is always in sight."""
    left, top, width, height = 40, 8, 340, 180
    drawn = [point for points in series.values() for point in points]
    first, last = min(x for x, _ in drawn), max(x for x, _ in drawn)
    high = nice(max(y for _, y in drawn))

    def at(x: float, y: float) -> tuple[float, float]:
        share = (x - first) / (last - first) if last > first else 0.5
        return left + width * share, top + height * (1 - max(y, 0) / high)

    body = []
    for tick in range(5):
        y = top + height * (1 - tick / 4)
        body.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y:g}" y2="{y:g}"/>')
        body.append(f'<text class="soft" x="{left - 5}" y="{y + 4:g}" text-anchor="end">{high * tick / 4:.3g}</text>')
    named = (
        {first: f"epoch {first:g}"}
        if first == last
        else {first: f"{first:g}", (first + last) / 2: "epoch", last: f"{last:g}"}
    )
    body += [
        f'<text class="soft" x="{at(x, 0)[0]:g}" y="{top + height + 16}" text-anchor="middle">{told}</text>'
        for x, told in named.items()
    ]
    for place, (name, points) in enumerate(series.items()):
        path, own = [at(x, y) for x, y in points], pens[name] if pens else pen(place)
        told = f"<title>{escape(name)}</title>"
        if len(path) == 1:
            body.append(
                f'<circle cx="{path[0][0]:.1f}" cy="{path[0][1]:.1f}" r="3" fill="{own.colour}">{told}</circle>'
            )
        elif path:
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
            body.append(f'<polyline points="{joined}" {own.line}>{told}</polyline>')
    return svg(left + width + 14, top + height + 24, label, body)


def nice(value: float) -> float:
    """A round number at or above a value."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10, 20) if step * power >= value * 0.999)


def sample(own: Pen) -> Markup:
    """A short line, for a legend."""
    return Markup(f'<svg viewBox="0 0 28 8" aria-hidden="true"><path d="M0 4h28" {own.line}/></svg>')


def matrix(label: str, names: Sequence[str], counts: Any) -> Markup:
    """A confusion matrix: rows are true classes, the depth of a cell is its share of the row."""
    left, cell = 136, 20
    body = []
    for row, name in enumerate(names):
        total = max(1, int(counts[row].sum()))
        body.append(
            f'<text x="{left - 6}" y="{row * cell + 35}" text-anchor="end">{row + 1} {escape(_short(name))}</text>'
        )
        body.append(f'<text class="soft" x="{left + row * cell + 10}" y="14" text-anchor="middle">{row + 1}</text>')
        for column in range(len(names)):
            count = int(counts[row, column])
            colour = "var(--c0)" if row == column else "var(--c1)"
            body.append(
                f'<rect x="{left + column * cell}" y="{row * cell + 20}" width="{cell - 1}" height="{cell - 1}" fill="{colour}" '
                f'fill-opacity="{0.04 + 0.6 * count / total:.2f}"><title>{escape(name)} as {escape(names[column])}: {count}</title></rect>'
            )
            if count:
                body.append(
                    f'<text x="{left + column * cell + 9.5}" y="{row * cell + 34}" text-anchor="middle">{count}</text>'
                )
    return svg(left + len(names) * cell + 4, len(names) * cell + 22, label, body)


def heat(
    label: str, rows: Sequence[str], columns: Sequence[str], values: Any, low: float, high: float, digits: int = 2
) -> Markup:
    """A matrix with its numbers; the depth of a cell is its place between `low` and `high`, with another hue below zero."""
    left, wide, tall = 136, 36 if max(map(len, columns)) <= 3 else 54, 22
    body = [
        f'<text class="soft" x="{left + column * wide + wide / 2}" y="14" text-anchor="middle">{escape(name)}</text>'
        for column, name in enumerate(columns)
    ]
    for row, name in enumerate(rows):
        body.append(f'<text x="{left - 6}" y="{row * tall + 35}" text-anchor="end">{escape(_short(name))}</text>')
        for column, told in enumerate(columns):
            value = float(values[row][column])
            share = abs(value) / max(high, -low) if low < 0 else (value - low) / (high - low) if high > low else 0.5
            x, y = left + column * wide, row * tall + 20
            body.append(
                f'<rect x="{x}" y="{y}" width="{wide - 1}" height="{tall - 1}" fill="var(--c{int(value < 0)})" '
                f'fill-opacity="{0.04 + 0.5 * min(max(share, 0), 1):.2f}"><title>{escape(name)}, {escape(told)}: {value:.4f}</title></rect>'
                f'<text x="{x + wide / 2 - 0.5}" y="{y + 15}" text-anchor="middle">{value:.{digits}f}</text>'
            )
    return svg(left + len(columns) * wide + 4, len(rows) * tall + 22, label, body)


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:6]}…{name[-9:]}"


def strips(label: str, values: Mapping[str, float], others: Mapping[str, Sequence[tuple[str, float]]]) -> Markup:
    """A line for each name: its value as a dot, among others' values (name and number) as ticks."""
    left, width, row = 118, 250, 22
    body = []
    for place, (name, value) in enumerate(values.items()):
        y = place * row + 11
        body.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
                    f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>')  # fmt: skip
        body += [
            f'<line x1="{left + width * number:.1f}" x2="{left + width * number:.1f}" y1="{y - 6}" y2="{y + 6}" '
            f'stroke="var(--soft)" stroke-width="1.5"><title>{escape(other)}: {number:.1%}</title></line>'
            for other, number in others.get(name, ())
        ]
        body.append(f'<circle cx="{left + width * value:.1f}" cy="{y}" r="4.5" fill="var(--c1)"/>'
                    f'<text x="{left + width + 8}" y="{y + 4}">{value:.1%}</text>')  # fmt: skip
    return svg(left + width + 50, len(values) * row + 4, label, body)


def parallel(label: str, axes: Sequence["Axis"], lines_of: Sequence["Strand"]) -> Markup:
    """Parallel coordinates: an axis for each quantity, a line for each trial through its places from 0 (bottom) to 1 (top)."""
    top, height, apart = 26, 190, 96
    body, ticks = [], []
    for number, axis in enumerate(axes):
        x, named = 50 + number * apart, f"{escape(_short(axis.name))}<title>{escape(axis.name)}</title>"
        body.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{top}" y2="{top + height}"/>'
                    f'<text x="{x}" y="14" text-anchor="middle">{named}</text>')  # fmt: skip
        ticks += [
            f'<text class="tick" x="{x + 5}" y="{top + height * (1 - place) + 4:.1f}">{escape(told)}</text>'
            for place, told in axis.ticks
        ]
    for strand in lines_of:
        points = " ".join(
            f"{50 + number * apart},{top + height * (1 - place):.1f}"
            for number, place in enumerate(strand.places)
            if place is not None
        )
        body.append(f'<polyline points="{points}" {strand.pen.line}><title>{escape(strand.name)}</title></polyline>')
    return svg(110 + (len(axes) - 1) * apart, top + height + 14, label, [*body, *ticks])


class Axis(NamedTuple):
    """A quantity, with the places (0 to 1) of some of its values."""

    name: str
    ticks: Sequence[tuple[float, str]]


class Strand(NamedTuple):
    """A trial's places on all axes (None: it has no such value)."""

    name: str
    places: Sequence[float | None]
    pen: Pen
