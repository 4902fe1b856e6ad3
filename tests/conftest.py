"""What all tests share."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.together import Both, two_processes


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; where it is absent the test is skipped."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the folder of real data at {folder}")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Each sum on one core: a worker's has the order of the main thread's then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def both() -> Iterator[Both]:
    """Call a function in two processes that train together."""
    with two_processes() as call:
        yield call


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Mtan = Callable[..., Outcome]


def document(outcome: Outcome) -> Any:
    """The one JSON document of a command that went well."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.fixture
def mtan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the `mtan` command with these words, in this process; a fault of the software's is raised as it is."""
    from experiments.cli import main

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["mtan", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        printed = capsys.readouterr()
        code = leaving.value.code
        assert isinstance(code, int)
        return Outcome(code, printed.out, printed.err)

    return run
