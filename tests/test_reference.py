"""The references of the configurations: up to date, complete, and schemas that say what the code says."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import decathlon.config
import decathlon.reference
import dense_tasks.config
import dense_tasks.reference
from tests.conftest import Outcome

DOCS = Path(__file__).parents[1] / "docs"
Kind = tuple[str, ModuleType, ModuleType, str]
# the command, its modules, and what its pages' names begin with
KINDS: list[Kind] = [
    ("decathlon", decathlon.config, decathlon.reference, "configuration"),
    ("dense", dense_tasks.config, dense_tasks.reference, "dense-configuration"),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind[0])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def test_the_committed_pages_are_up_to_date(kind: Kind) -> None:
    _, _, reference, name = kind
    made = {".md": reference.markdown(), ".schema.json": json.dumps(reference.json_schema(), indent=2) + "\n"}
    for ending, text in made.items():
        assert (DOCS / f"{name}{ending}").read_text(encoding="utf-8") == text, "run `make reference`"


def test_every_key_and_every_preset_is_on_the_page(kind: Kind) -> None:
    _, config, reference, _ = kind
    page = reference.markdown()
    tables = ["phases", "changes"]  # sections of their own
    assert [key for key in config.config_keys() if f"| `{key}` |" not in page] == tables
    assert all(f"`{name}`" in page for name in config.preset_names())


def test_every_key_has_a_meaning(kind: Kind) -> None:
    _, config, reference, _ = kind
    rows = [line for line in reference.markdown().split("## Presets")[0].splitlines() if line.startswith("| `")]
    assert len(rows) > len(config.config_keys())  # those of a phase too
    assert [row for row in rows if row.split(" | ")[-1].strip(" |") == ""] == []


@pytest.mark.parametrize(("kind", "key", "least"), [(KINDS[0], "image_size", 16), (KINDS[1], "batch_size", 2)])
def test_the_schema_knows_ranges_choices_and_unknown_keys(kind: Kind, key: str, least: int) -> None:
    _, config, reference, _ = kind
    schema = reference.json_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"]["norm"]["enum"] == ["domain", "statistics", "shared"]
    assert schema["properties"][key]["minimum"] == least
    assert set(schema["properties"]) == set(config.RunConfig.model_fields)


def test_the_command_prints_either(mtan: Callable[..., Outcome], kind: Kind) -> None:
    command, _, reference, _ = kind
    page = mtan(command, "configuration")
    assert (page.code, page.out, page.err) == (0, reference.markdown(), "")
    schema = mtan(command, "configuration", "--json")
    assert (schema.code, json.loads(schema.out), schema.err) == (0, reference.json_schema(), "")
