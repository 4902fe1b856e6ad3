"""What a page is made of; the template knows how each kind of part looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from experiments.compare.rendering import Table

Part = dict[str, Any]


@dataclass
class Section:
    """A heading and the parts below it."""

    title: str
    parts: list[Part] = field(default_factory=list)


def table(content: Table) -> Part:
    return {"kind": "table", "title": content.title, "columns": content.columns, "rows": content.rows}


def facts(values: Mapping[str, Any]) -> Part:
    """Names and values; what is not known is left out."""
    return {"kind": "facts", "facts": {name: value for name, value in values.items() if value not in (None, "")}}


def note(text: str, warning: bool = False) -> Part:
    return {"kind": "note", "text": text, "warning": warning}


def heading(text: str) -> Part:
    return {"kind": "heading", "text": text}


def code(title: str, text: str) -> Part:
    return {"kind": "code", "title": title, "text": text}


def folded(title: str, parts: Sequence[Part]) -> Part:
    return {"kind": "folded", "title": title, "parts": parts}


def chart(svg: Markup, caption: str = "") -> Part:
    return {"svg": svg, "caption": caption}


def picture(source: str, alt: str, caption: str = "", style: str = "") -> Part:
    return {"source": source, "alt": alt, "caption": caption, "style": style}


def figures(shown: Sequence[Part], layout: str = "figures", columns: int = 0) -> Part:
    """Pictures or charts beside each other; in so many `columns` where they make a grid ("maps")."""
    return {"kind": "figures", "figures": shown, "layout": layout, "columns": columns}


def legend(entries: Sequence[tuple[str, Markup]]) -> Part:
    return {"kind": "legend", "entries": entries}
