"""The reference of the configuration of Decathlon runs: docs/configuration.md and its JSON schema."""

from typing import Any

from decathlon.config import KIND
from mtan_core import reference

_OPENING = """# Configuration

*Made by `make reference` from `decathlon.config.RunConfig`: edit that, not this page.*

A configuration is a TOML file (`mtan decathlon train --config FILE`) or a preset (`--preset NAME`), changed key by key with
`--set KEY=VALUE` (`--set optimizer.lr=0.02`, `--set phases.0.epochs=20`, `--set domains=dtd,svhn`). Every key has a default, so
a file holds only what differs. An unknown key is refused, and the near one suggested. The run's folder keeps the whole
configuration as `config.toml`, itself a valid file. Editors check files against [the schema](configuration.schema.json), also
printed by `mtan decathlon configuration --json`.
"""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return reference.json_schema(KIND, "Configuration of a Decathlon training run")


def markdown() -> str:
    """The reference page."""
    return reference.markdown(KIND, _OPENING, "domain")
