"""Searches whose state and checkpoints lie in an object store, here moto's S3 server on this machine."""

import json
from pathlib import Path

import pytest
from pyarrow import fs

from decathlon.config import load_config
from decathlon.training import train
from experiments.cluster.storage import open_storage, refuse_unwritable
from mtan_core.errors import UserError
from tests.conftest import Mtan
from tests.decathlon.conftest import Tiny
from tests.experiments.searching import HEAD, LR, Place, epochs_of, lines_of, went_on, written


def test_a_killed_search_goes_on_from_an_object_store(
    challenge: Tiny, place: Place, mtan: Mtan, tmp_path: Path, s3: str
) -> None:
    config = written(tmp_path, HEAD.replace("{epochs = 2}", "{epochs = 5}") + "trials = 2\nconcurrency = 1\n" + LR)
    out, where = tmp_path / "out", "s3://bucket/searches/one?allow_bucket_creation=true"
    words = ("search", config, "--data", challenge.store, "--out", out, "--storage", where)
    killed = place.killed({"Driver": 1}, *words)
    assert killed.done.returncode == -9
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == ["search.json", "search.toml"]
    first, _ = lines_of(fetched(where, tmp_path / "before"))
    done = place.command("resume", out, "--json")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)["best"]
    assert epochs_of(out) == {number: list(range(1, 6)) for number in range(2)}
    finished, again = lines_of(fetched(where, tmp_path / "after"))
    assert finished == first and went_on(again, killed.processes["Driver"])
    summary = train(load_config(None, out / "best.toml"), str(challenge.store), tmp_path / "again")
    assert summary["mean_val_accuracy"] == best["metric"]
    other = mtan("experiments", *words[:-3], tmp_path / "other", *words[-2:])
    assert other.code == 2 and "a place without a search" in other.err and other.err.count("\n") == 1


def fetched(where: str, folder: Path) -> Path:
    """A copy of what Ray has stored there, as if it were a search's folder."""
    storage = open_storage(where)
    fs.copy_files(storage.path, str(folder), source_filesystem=storage.filesystem)
    return folder


def test_an_endpoint_in_the_uri_and_a_bucket_that_is_not_there(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    where = f"s3://nowhere/x?scheme=http&endpoint_override={s3}"
    with pytest.raises(UserError, match="a place to write"):
        refuse_unwritable(open_storage(where), where)
    where += "&allow_bucket_creation=true"
    refuse_unwritable(open_storage(where), where)
    assert open_storage(where).exists()


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    storage = open_storage(tmp_path.as_uri())
    target = f"{storage.path}/state.json"
    for text in (b"one", b"two"):
        with storage.filesystem.open_output_stream(target) as stream:
            before = Path(target).read_bytes() if Path(target).exists() else b""
            stream.write(text)
            assert before == (b"" if text == b"one" else b"one")
            assert not Path(target).exists() or Path(target).read_bytes() == before
        assert Path(target).read_bytes() == text
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
