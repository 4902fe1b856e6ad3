"""A place for searches, which leave nothing in it, and a server of object storage."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.decathlon.conftest import challenge  # noqa: F401 -- a fixture
from tests.experiments.searching import Place


@pytest.fixture
def place() -> Iterator[Place]:
    """A short name: Ray's sockets, whose names cannot be long, lie within."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    try:
        yield Place(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server for this process and those it starts; yields HOST:PORT."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1",
                        "ENDPOINT_URL": f"http://{host}:{port}"}.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    yield f"{host}:{port}"
    server.stop()
