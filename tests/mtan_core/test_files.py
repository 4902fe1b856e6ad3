"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from mtan_core.errors import UserError
from mtan_core.files import check_output, replacing, write_json, write_text


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


def test_the_systems_error_names_the_file_meant(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder") as over_a_folder:
        write_text(tmp_path / "folder", "text")
    with pytest.raises(OSError, match="part") as within, replacing(tmp_path / "new") as temporary:
        (temporary / "part").write_text("text")
    with pytest.raises(FileNotFoundError) as other, replacing(tmp_path / "new"):
        (tmp_path / "absent").read_text()
    found = [problem.value.filename for problem in (over_a_folder, within, other)]
    assert found == [str(tmp_path / name) for name in ("folder", "new/part", "absent")]


def test_a_name_that_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file.PNG").write_text("old")
    check_output(tmp_path / "file.PNG", (".png", ".pdf"))
    check_output(tmp_path / "new" / "folder" / "file", (".png", ".pdf"))
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("", "a folder"), ("file.xyz", ".png, .pdf"), ("file.PNG/x/y.png", "a file"), ("pipe", "pipe")):
        with pytest.raises(UserError, match=told):
            check_output(tmp_path / name, (".png", ".pdf"))
    assert (tmp_path / "file.PNG").read_text() == "old" and len(list(tmp_path.iterdir())) == 2
