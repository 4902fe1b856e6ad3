"""Checkpoints: folders that are whole or not there, of safetensors and JSON; nothing in them is executed on reading."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtan_core.errors import UserError
from mtan_core.files import replacing

FORMAT = 1
Tensors = Mapping[str, Tensor]


class _Part(BaseModel):
    """A part of a state that is read back into an object with just these fields."""

    model_config = ConfigDict(extra="forbid")


class PositionFields(_Part):
    """Fields of `mtan_core.loop.Position`."""

    phase: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    epochs: NonNegativeInt = 0
    step: NonNegativeInt = 0
    steps: NonNegativeInt = 0
    drawn: dict[str, NonNegativeInt] = Field(default_factory=dict)


class TallyFields(_Part):
    """Fields of `mtan_core.metrics.Tally`."""

    correct: NonNegativeInt = 0
    seen: NonNegativeInt = 0
    loss: float = 0.0
    steps: NonNegativeInt = 0
    step_losses: float = 0.0
    metrics: dict[str, float] = {}


class BestFields(_Part):
    """The best validation."""

    step: NonNegativeInt
    accuracy: float


class StateFields(BaseModel):
    """What every `state.json` of a run holds. Imported weights were trained nowhere: their position is empty."""

    position: PositionFields
    tallies: dict[str, TallyFields]
    rows: list[dict[str, Any]]
    best: BestFields | None
    images: NonNegativeInt
    seconds: float
    weighting: dict[str, Any] | None = None
    average_steps: dict[str, NonNegativeInt] | Literal[0] | None = None  # 0: nothing is averaged

    @model_validator(mode="after")
    def _can_be_resumed(self) -> "StateFields":
        if self.position.model_fields_set and (self.weighting is None or self.average_steps is None):
            raise ValueError("`weighting` or `average_steps` is missing")
        return self


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any]) -> Path:
    """Write `folder`/step-<N> with one safetensors file per entry of `tensors` and `state.json`, atomically.

    Raises OSError, also for a full disk, and leaves what was there.
    """
    path = folder / f"step-{step}"
    with replacing(path) as temporary:
        temporary.mkdir()
        for name, values in tensors.items():
            _save_tensors(values, temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(json.dumps({"format": FORMAT, **state}, allow_nan=False))
        if path.exists():  # a folder cannot be renamed over another one
            path.rename(_aside(path))
    shutil.rmtree(_aside(path), ignore_errors=True)
    return path


def save_untrained(folder: Path, weights: Tensors) -> Path:
    """Write weights that no training here has made, or none yet, as the checkpoint of step 0."""
    state: dict[str, Any] = {"position": {}, "tallies": {}, "rows": [], "best": None, "images": 0, "seconds": 0.0}
    return save_checkpoint(folder, 0, {"weights": weights}, state)


def _aside(path: Path) -> Path:
    """Where a checkpoint stays while another one takes its place."""
    return path.with_name(f".old-{path.name}")


def _save_tensors(values: Tensors, path: Path) -> None:
    try:
        save_file({key: value.detach().cpu().contiguous() for key, value in values.items()}, path)
    except SafetensorError as problem:  # it hides the system's error in words: "... Os { code: 28, ... }"
        code = re.search(r"code: (\d+)|os error (\d+)", str(problem))
        if code is None:
            raise
        number = int(code[1] or code[2])
        raise OSError(number, os.strerror(number), str(path)) from None


def recover(folder: Path) -> None:
    """Tidy up after a writer that was killed: a checkpoint that was being replaced comes back, half-written ones go."""
    for old in folder.glob(".old-step-*"):
        path = old.with_name(old.name.removeprefix(".old-"))
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)
    for temporary in folder.glob(".tmp-*"):
        shutil.rmtree(temporary)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; what an interrupted writer left is not one."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def prune(folder: Path, keep: int, also: Path | None) -> None:
    """Delete all but the last `keep` checkpoints and `also`."""
    for path in checkpoints(folder)[:-keep]:
        if path != also:
            doomed = path.with_name(f".tmp-doomed-{path.name}")  # no folder looks whole when half of it is deleted
            path.rename(doomed)
            shutil.rmtree(doomed)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read `state.json`. Raises UserError when it is damaged, of another format, or without what a run needs."""
    path = checkpoint / "state.json"
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as problem:
        raise UserError(
            f"{path}: expected a checkpoint's state, found a damaged file ({problem}){_older(checkpoint)}."
        ) from None
    version = state.get("format") if isinstance(state, dict) else None
    if version != FORMAT:
        raise UserError(f"{path}: expected checkpoint format {FORMAT}, found {version}: use the version that wrote it.")
    try:
        StateFields.model_validate(state)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"])) or "state"
        raise UserError(
            f"{path}: expected a checkpoint's state, found a damaged one; `{place}`: {first['msg']}{_older(checkpoint)}."
        ) from None
    return dict(state)


def read_tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """Read one safetensors file of a checkpoint. Raises UserError when it is missing or damaged."""
    path = checkpoint / f"{name}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as problem:
        raise UserError(f"{path}: expected a whole safetensors file, found: {problem}{_older(checkpoint)}.") from None


def _older(checkpoint: Path) -> str:
    """What can be done about a damaged checkpoint."""
    before = [path.name for path in checkpoints(checkpoint.parent) if step_of(path) < step_of(checkpoint)]
    return f"; delete the folder {checkpoint} to go on from {before[-1]}" if before else ""


def load_exactly(module: torch.nn.Module, values: Tensors, where: str) -> None:
    """Load a state dict that must fit name for name and shape for shape.

    Raises UserError that lists what is missing, extra and mis-shaped.
    """
    problems = misfits({name: value.shape for name, value in module.state_dict().items()}, values)
    if problems:
        raise UserError(f"{where}: expected weights of the network described, found those of another one; {problems}.")
    module.load_state_dict(dict(values))


def misfits(expected: Mapping[str, torch.Size], values: Tensors, show: int = 5) -> str:
    """What of `values` does not fit the expected names and shapes, in words; empty when all does."""
    shapes = [
        f"{name} {tuple(values[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in values and values[name].shape != shape
    ]
    kinds = {
        "missing": [name for name in expected if name not in values],
        "extra": [name for name in values if name not in expected],
        "mis-shaped": shapes,
    }
    return "; ".join(f"{kind} ({len(names)}): {_some(names, show)}" for kind, names in kinds.items() if names)


def _some(names: list[str], show: int) -> str:
    return ", ".join(names[:show]) + (", ..." if len(names) > show else "")
