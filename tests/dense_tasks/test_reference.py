"""The reference of the configuration of dense runs: up to date, complete, and a schema that says what the code says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dense_tasks.config import RunConfig, config_keys, preset_names
from dense_tasks.reference import json_schema, markdown
from tests.conftest import Outcome

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("dense-configuration.md", markdown),
        ("dense-configuration.schema.json", lambda: json.dumps(json_schema(), indent=2) + "\n"),
    ],
)
def test_the_committed_pages_are_up_to_date(page: str, made: Callable[[], str]) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == made(), "run `make reference`"


def test_every_key_and_every_preset_is_on_the_page() -> None:
    page = markdown()
    tables = {"phases"}  # a section of its own
    assert [key for key in config_keys() if f"| `{key}` |" not in page] == sorted(tables)
    assert all(f"`{name}`" in page for name in preset_names())


def test_every_key_has_a_meaning() -> None:
    rows = [line for line in markdown().split("## Presets")[0].splitlines() if line.startswith("| `")]
    assert len(rows) > len(config_keys())  # those of a phase too
    assert [row for row in rows if row.split(" | ")[-1].strip(" |") == ""] == []


def test_the_schema_knows_ranges_choices_and_unknown_keys() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"]["norm"]["enum"] == ["domain", "statistics", "shared"]
    assert schema["properties"]["batch_size"]["minimum"] == 2
    assert set(schema["properties"]) == set(RunConfig.model_fields)


def test_the_command_prints_either(mtan: Callable[..., Outcome]) -> None:
    page = mtan("dense", "configuration")
    assert (page.code, page.out, page.err) == (0, markdown(), "")
    schema = mtan("dense", "configuration", "--json")
    assert (schema.code, json.loads(schema.out), schema.err) == (0, json_schema(), "")
