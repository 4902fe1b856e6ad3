"""The documents: links lead somewhere, and every command they name exists with the options they give it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from experiments.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMAND = re.compile(r"\bmtan ((?:decathlon|experiments|quickstart|dense)\b[^`#\n]*)")


def command_lines() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for found in COMMAND.finditer(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            yield page, found[1].strip()


def problem(line: str) -> str | None:
    """What is wrong with a command line as documented; None if nothing is."""
    command: Any = get_command(app)
    words = line.split()
    while hasattr(command, "commands") and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        word = words.pop(0)
        if word not in command.commands:
            return f"there is no command {word}"
        command = command.commands[word]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [option for option in re.findall(r"--[a-z][a-z-]*", " ".join(words)) if option not in {*known, "--help"}]
    return f"no option {unknown[0]}" if unknown else None


def test_every_command_in_the_documents_exists() -> None:
    lines = list(command_lines())
    assert len(lines) > 20
    assert [f"{page.name}: mtan {line}: {problem(line)}" for page, line in lines if problem(line)] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("decathlon trian --data x", "there is no command trian"),
        ("decathlon train --dta x", "no option --dta"),
        ("decathlon train --data x --set a=b", None),
        ("experiments bench data", None),
    ],
)
def test_the_check_sees_what_it_is_for(line: str, found: str | None) -> None:
    assert problem(line) == found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert [link for link in inside if not (page.parent / link).exists()] == []
