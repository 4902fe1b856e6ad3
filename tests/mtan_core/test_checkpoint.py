"""Checkpoints: whole or not there, read without trust."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtan_core import checkpoint
from mtan_core.checkpoint import (
    checkpoints,
    load_exactly,
    misfits,
    prune,
    read_state,
    read_tensors,
    recover,
    save_checkpoint,
)
from mtan_core.errors import UserError
from mtan_core.loop import Position
from mtan_core.metrics import Tally

EMPTY = {"position": {}, "tallies": {}, "rows": [], "best": None, "images": 0, "seconds": 0.0}
TRAINED = {**EMPTY, "position": {"step": 1, "drawn": {"a": 2}}, "weighting": {}, "average_steps": {}}
TENSORS = {"weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}, "training": {"a/m": torch.zeros(2)}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "run", 12, TENSORS, {**EMPTY, "loss": 0.1})
    assert path == tmp_path / "run" / "step-12"
    assert read_state(path) == {"format": 1, **EMPTY, "loss": 0.1}
    for name, values in TENSORS.items():
        found = read_tensors(path, name)
        assert set(found) == set(values)
        assert all(torch.equal(found[key], value) for key, value in values.items())


def test_checkpoints_are_listed_by_their_steps(tmp_path: Path) -> None:
    for step in (100, 9, 20):
        save_checkpoint(tmp_path, step, TENSORS, {})
    for name in (".tmp-1-step-7", "step-x", ".old-step-5", "notes"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-9", "step-20", "step-100"]
    assert checkpoints(tmp_path / "absent") == []


def test_a_checkpoint_can_take_the_place_of_another(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, TENSORS, {**EMPTY, "value": 1})
    path = save_checkpoint(tmp_path, 3, {"weights": {"c": torch.ones(2)}}, {**EMPTY, "value": 2})
    assert read_state(path)["value"] == 2
    assert sorted(file.name for file in path.iterdir()) == ["state.json", "weights.safetensors"]
    assert [child.name for child in tmp_path.iterdir()] == ["step-3"]


class Killed(BaseException):
    """What stands for the end of the process: nothing of ours may catch it and go on."""


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The writer ends at the n-th file operation, n = `interrupted[0]`; what it did until then stays."""
    countdown = [10**6]

    def counting(operation: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            countdown[0] -= 1
            if countdown[0] < 0:
                raise Killed
            return operation(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(checkpoint, "save_file", counting(checkpoint.save_file))
    monkeypatch.setattr(Path, "write_text", counting(Path.write_text))
    monkeypatch.setattr(Path, "mkdir", counting(Path.mkdir))
    monkeypatch.setattr(Path, "rename", counting(Path.rename))
    monkeypatch.setattr(os, "replace", counting(os.replace))
    monkeypatch.setattr(os, "fsync", counting(os.fsync))
    monkeypatch.setattr("shutil.rmtree", counting(lambda *args, **kwargs: None))  # a killed process tidies up nothing
    return countdown


@pytest.mark.parametrize("operations", range(16))
def test_a_folder_never_looks_whole_when_writing_was_interrupted(
    tmp_path: Path, interrupted: list[int], monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, {**EMPTY, "value": 1})
    save_checkpoint(tmp_path, 2, TENSORS, {**EMPTY, "value": 2})
    interrupted[0] = operations
    try:
        save_checkpoint(tmp_path, 2, {"weights": {"c": torch.ones(2)}}, {**EMPTY, "value": 3})
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()
    recover(tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-1", "step-2"]
    assert {child.name for child in tmp_path.iterdir()} == {"step-1", "step-2"}
    last = checkpoints(tmp_path)[-1]
    value = read_state(last)["value"]
    assert value == 3 if finished else value in (2, 3)
    assert set(read_tensors(last, "weights")) == ({"c"} if value == 3 else {"a", "b"})


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, {**EMPTY, "value": 1})
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, 1, TENSORS, {"value": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, 2, TENSORS, {"value": float("nan")})
    assert [child.name for child in tmp_path.iterdir()] == ["step-1"]
    assert read_state(tmp_path / "step-1")["value"] == 1


def test_the_systems_error_comes_through_safetensors(tmp_path: Path) -> None:
    with pytest.raises(OSError) as problem:
        checkpoint._save_tensors({"a": torch.ones(1)}, tmp_path / "absent" / "a.safetensors")
    assert problem.value.errno == errno.ENOENT


def test_pruning_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 10):
        save_checkpoint(tmp_path, step, TENSORS, {})
    prune(tmp_path, 2, tmp_path / "step-2")
    assert {child.name for child in tmp_path.iterdir()} == {"step-2", "step-4", "step-10"}
    prune(tmp_path, 5, None)
    assert len(checkpoints(tmp_path)) == 3
    prune(tmp_path, 1, None)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-10"]


def test_misfits_lists_names() -> None:
    expected = {name: torch.Size([2]) for name in "abcdefghij"}
    values = {"a": torch.zeros(2), "b": torch.zeros(3), "z": torch.zeros(1)}
    told = misfits(expected, values)
    assert "missing (8): c, d, e, f, g, ..." in told
    assert "extra (1): z" in told
    assert "mis-shaped (1): b (3,) instead of (2,)" in told
    assert misfits({"a": torch.Size([2])}, {"a": torch.zeros(2)}) == ""


def test_load_exactly_loads_all_or_nothing(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 3)
    good = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
    bad: list[Mapping[str, Tensor]] = [
        {"weight": torch.ones(3, 2)},
        {**good, "surplus": torch.ones(1)},
        {**good, "bias": torch.ones(4)},
    ]
    before = module.weight.detach().clone()
    for values, word in zip(bad, ("missing", "extra", "mis-shaped"), strict=True):
        with pytest.raises(UserError, match=f"here: .*{word}"):
            load_exactly(module, values, "here")
        assert torch.equal(module.weight, before)
    load_exactly(module, good, "here")
    assert module.weight.eq(1).all()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("name", ["weights.safetensors", "state.json"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, name: str, share: float) -> None:
    path = save_checkpoint(tmp_path, 1, TENSORS, {**EMPTY, "rows": [{"epoch": 1}] * 50})
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=name):
        read_state(path)
        read_tensors(path, "weights")


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json"])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = save_checkpoint(tmp_path, 1, TENSORS, EMPTY)
    (path / name).unlink()
    with pytest.raises(UserError, match=name):
        read_state(path)
        read_tensors(path, "weights")


@pytest.mark.parametrize("document", ['{"format": 99}', "{}", "[]", "3"])
def test_another_format_is_refused(tmp_path: Path, document: str) -> None:
    path = save_checkpoint(tmp_path, 1, TENSORS, {})
    (path / "state.json").write_text(document)
    with pytest.raises(UserError, match=r"state\.json"):
        read_state(path)


@pytest.mark.parametrize("missing", [*EMPTY, "weighting", "average_steps"])
def test_a_state_without_what_a_run_needs_is_refused(tmp_path: Path, missing: str) -> None:
    assert read_state(save_checkpoint(tmp_path, 1, TENSORS, TRAINED))["position"] == TRAINED["position"]
    path = save_checkpoint(tmp_path, 2, TENSORS, {key: value for key, value in TRAINED.items() if key != missing})
    with pytest.raises(UserError, match=f"state.json.*{missing}"):
        read_state(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position", {"epok": 1}), ("position", []), ("position", {"drawn": {"a": "many"}}), ("best", {"step": 1}),
        ("rows", [3]), ("tallies", {"a": {"sean": 1}}), ("images", None), ("seconds", "long"),
    ],
)  # fmt: skip
def test_a_state_of_another_kind_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = save_checkpoint(tmp_path, 1, TENSORS, {**TRAINED, key: value})
    with pytest.raises(UserError, match=f"state.json.*{key}"):
        read_state(path)


def test_states_are_checked_for_the_fields_they_are_read_into() -> None:
    for checked, kind in ((checkpoint.PositionFields, Position), (checkpoint.TallyFields, Tally)):
        assert set(checked.model_fields) == {field.name for field in fields(kind)}


def test_states_are_plain_json(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, TENSORS, {**EMPTY, "loss": 1 / 3})
    assert json.loads((path / "state.json").read_text())["loss"] == 1 / 3
