"""A place for searches, which leave nothing in it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
