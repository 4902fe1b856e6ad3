"""Which checkpoint of a run answers. Here it is read without torch, for the commands."""

from typing import Literal

from mtan_core.errors import UserError

Choice = Literal["last", "best"]


def choose_checkpoint(name: str) -> Choice:
    """Raises UserError for a name that is neither."""
    if name == "last":
        return "last"
    if name == "best":
        return "best"
    raise UserError(f"--checkpoint: expected last or best, found '{name}'.")
