"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from mtan_core.errors import UserError
from mtan_core.files import replacing, write_json, write_text


def test_a_failed_writer_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_writer_of_a_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_device_or_pipe_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="pipe"):
        write_text(pipe, "text")
    assert pipe.is_fifo()
