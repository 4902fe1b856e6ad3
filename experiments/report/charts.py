"""Charts as inline SVG, whose colours are those of the page, light or dark; and pictures as data URIs."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from markupsafe import Markup, escape

COLOURS, DASHES = 7, ("", "5 3", "1.5 2.5")
Points = Sequence[tuple[float, float]]


def stroke(place: int) -> str:
    """The attributes that tell the line of a series from the others."""
    dash = DASHES[place // COLOURS % len(DASHES)]
    return f'stroke="var(--c{place % COLOURS})" fill="none" stroke-width="1.8"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def svg(width: float, height: float, label: str, body: Sequence[str]) -> Markup:
    inside = "".join(body)
    return Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width: {1.3 * width:g}px" role="img" aria-label="{escape(label)}">'
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
            f'<text x="{left - 6}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{top + 4}" width="{width * value:.1f}" height="14" fill="var(--c0)"/>'
            f'<text x="{left + width * value + 5:.1f}" y="{top + 15}">{value:.1%}</text>'
        )
        if mark is not None:
            x = left + width * mark
            body.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + 2}" y2="{top + 20}" stroke="var(--c1)" stroke-width="2"/>'
            )
    return svg(left + width + 50, len(values) * row + 4, label, body)


def lines(label: str, series: Mapping[str, Points]) -> Markup:
    """Lines over epochs; the series' place decides its colour and dashes. Zero is always in sight."""
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
        path = [at(x, y) for x, y in points]
        if len(path) == 1:
            (x, y), colour = path[0], f"var(--c{place % COLOURS})"
            told = f"<title>{escape(name)}</title>"
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">{told}</circle>')
        elif path:
            told = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
            body.append(f'<polyline points="{told}" {stroke(place)}><title>{escape(name)}</title></polyline>')
    return svg(left + width + 14, top + height + 24, label, body)


def nice(value: float) -> float:
    """A round number at or above a value."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10, 20) if step * power >= value * 0.999)


def legend_line(place: int) -> Markup:
    return Markup(f'<svg viewBox="0 0 28 8" aria-hidden="true"><path d="M0 4h28" {stroke(place)}/></svg>')


def matrix(label: str, names: Sequence[str], counts: Any) -> Markup:
    """A confusion matrix: rows are true classes, the depth of a cell is its share of the row."""
    left, cell = 136, 20
    body = []
    for row, name in enumerate(names):
        total = max(1, int(counts[row].sum()))
        short = name if len(name) <= 16 else f"{name[:6]}…{name[-9:]}"
        body.append(f'<text x="{left - 6}" y="{row * cell + 35}" text-anchor="end">{row + 1} {escape(short)}</text>')
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


def drawn(draw: Callable[[Path], object]) -> str:
    """The PNG that `draw` writes, as a data URI."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        draw(path)
        return data_uri(path.read_bytes())


def thumbnail(pixels: Any) -> str:
    """An image (H, W, 3) uint8 as a data URI, at most 96 pixels wide and tall."""
    from PIL import Image

    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((96, 96))
    image.save(buffer, "PNG")
    return data_uri(buffer.getvalue())


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
