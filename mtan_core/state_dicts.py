"""Checkpoints that others wrote: plain state dicts."""

from pathlib import Path

import torch
from torch import Tensor

from mtan_core.errors import UserError


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """A plain state dict, read without executing anything (`weights_only`); a checkpoint's `model_state_dict` is taken out."""
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except (
        Exception
    ) as problem:  # a harmed pickle raises whatever its instructions run into: TypeError, IndexError, ...
        raise UserError(
            f"{file}: expected a torch state dict of plain tensors, found {_what(file, problem)}."
        ) from None
    for key in ("model_state_dict", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    plain = isinstance(loaded, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items())
    if not plain:
        raise UserError(f"{file}: expected a torch state dict of plain tensors, found a {type(loaded).__name__}.")
    for name, value in loaded.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{file}: expected finite weights, found NaN or infinity in {name}.")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _what(file: Path, problem: Exception) -> str:
    """What a file that torch does not read seems to be."""
    with file.open("rb") as opened:
        begin = opened.read(2)
    if not begin:
        return "an empty file"
    if begin[:1] != b"\x80" and begin != b"PK":
        return "a file of another kind"
    if "Unsupported global" in str(problem) or "GLOBAL" in str(problem):
        return "objects that only running the file's own code could make"
    return f"a damaged one ({type(problem).__name__})"
