"""What a search needs and does not find: one sentence, exit code 2, nothing written and nothing left running."""

import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.conftest import Mtan, Outcome
from tests.decathlon.conftest import Tiny
from tests.dense_tasks.roots import write_root
from tests.experiments.searching import HEAD, LR, Place, written


def refused(outcome: Outcome, told: str) -> bool:
    return outcome.code == 2 and told in outcome.err and outcome.err.count("\n") == 1 and outcome.out == ""


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def served() -> Iterator[str]:
    """The address of a server that speaks gRPC, but is no Ray."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_what_cannot_be_reached(challenge: Tiny, mtan: Mtan, tmp_path: Path, silent: str) -> None:
    out = tmp_path / "out"
    words = ["experiments", "search", written(tmp_path, HEAD + LR), "--out", out, "--data"]
    (tmp_path / "file").write_text("")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
    assert mtan(*words, tmp_path / "nothing").code == 2
    words.append(challenge.store)
    assert refused(mtan(*words, "--address", closed), "nobody answers")
    assert refused(mtan(*words, "--address", "nowhere"), "expected HOST:PORT")
    begun = time.monotonic()
    assert refused(mtan(*words, "--address", silent), "within 15 s")
    assert time.monotonic() - begun < 60  # 15 s, and what a busy machine adds
    with served() as other:
        assert refused(mtan(*words, "--address", other), "what answers there is no Ray")
    assert refused(mtan(*words, "--storage", tmp_path / "file"), "a place to write")
    assert refused(mtan(*words, "--storage", "nonsense://there"), "folder or URI")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "near"), [("val_acuracy.svhn", "val_accuracy.svhn"), ("val_accuracy.svhm", "val_accuracy.svhn")]
)
def test_a_metric_that_no_trial_would_report(challenge: Tiny, mtan: Mtan, tmp_path: Path, name: str, near: str) -> None:
    config = written(tmp_path, f'metric = "{name}"\n' + HEAD + LR)
    asked = mtan("experiments", "search", config, "--data", challenge.store, "--out", tmp_path / "out")
    assert refused(asked, f"did you mean '{near}'?") and not (tmp_path / "out").exists()


def test_dense_data_and_measures_are_looked_at_before(mtan: Mtan, tmp_path: Path) -> None:
    root = write_root(tmp_path / "root")
    for metric, told in (("val_miou.semantics", "did you mean 'val_miou.semantic'?"), ("val_miou.semantic", "no npy")):
        config = written(tmp_path, f'task = "dense"\npreset = "small"\nmetric = "{metric}"\n' + LR)
        words = ("experiments", "search", config, "--data", root, "--out", tmp_path / "out")
        assert refused(mtan(*words), told) and not (tmp_path / "out").exists()
        (root / "train/depth/0.npy").write_bytes(b"rubbish")


def test_no_machine_has_the_resources(challenge: Tiny, place: Place, tmp_path: Path) -> None:
    config = written(tmp_path, HEAD + "[resources]\ncpus = 1000\n" + LR)
    done = place.command("search", config, "--data", challenge.store, "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "at most what a machine has" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_resumed(mtan: Mtan, tmp_path: Path, challenge: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(mtan("experiments", "resume", tmp_path), "a search's folder (with search.json)")
    (tmp_path / "search.toml").write_text(HEAD + LR)
    file = tmp_path / "search.json"
    file.write_text("{")
    assert refused(mtan("experiments", "resume", tmp_path), "a damaged file")
    where = {"format": 1, "data": str(tmp_path / "moved"), "storage": None, "address": None}
    file.write_text(json.dumps(where))
    assert refused(mtan("experiments", "resume", tmp_path), str(tmp_path / "moved"))
    file.write_text(json.dumps({**where, "data": str(challenge.store), "storage": str(tmp_path / "gone")}))
    assert refused(mtan("experiments", "resume", tmp_path), "was it moved?")
    file.write_text(json.dumps({**where, "data": str(challenge.store)}))
    monkeypatch.setattr(os, "getuid", lambda: -1)
    assert refused(mtan("experiments", "resume", tmp_path), "another user's")


def test_a_machine_on_which_ray_does_not_start_in_time(
    challenge: Tiny, mtan: Mtan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")  # as Ray says it

    monkeypatch.setattr("ray.init", late)
    config = written(tmp_path, HEAD + LR)
    asked = mtan("experiments", "search", config, "--data", challenge.store, "--out", tmp_path / "out")
    assert refused(asked, "when the machine is less busy") and not (tmp_path / "out").exists()
