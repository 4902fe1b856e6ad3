"""The reference of the configuration of dense runs: docs/dense-configuration.md and its JSON schema."""

from typing import Any

from dense_tasks.config import KIND
from mtan_core import reference

_OPENING = """# Configuration of dense runs

*Made by `make reference` from `dense_tasks.config.RunConfig`: edit that, not this page.*

A configuration is a TOML file (`mtan dense train --config FILE`) or a preset (`--preset NAME`), changed key by key with
`--set KEY=VALUE` (`--set optimizer.lr=0.001`, `--set phases.0.epochs=20`, `--set tasks=semantic,depth`). Every key has a default, so
a file holds only what differs. An unknown key is refused, and the near one suggested. The run's folder keeps the whole
configuration as `config.toml`, itself a valid file. Editors check files against [the schema](dense-configuration.schema.json), also
printed by `mtan dense configuration --json`.
"""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return reference.json_schema(KIND, "Configuration of a dense training run")


def markdown() -> str:
    """The reference page."""
    return reference.markdown(KIND, _OPENING, "task")
