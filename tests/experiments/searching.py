"""What the tests of searches share: the command in a process of its own, which is seen to leave nothing behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.cluster.watchdog import members
from tests.decathlon.conftest import TINY

HEAD = f'preset = "quickstart"\nset = {json.dumps(TINY)}\n'
LONG = HEAD.replace("{epochs = 2}", "{epochs = 12}")  # to be killed in the middle
LR = '[space]\n"optimizer.lr" = {log_uniform = [1e-3, 1e-1]}\n'
Lines = list[dict[str, Any]]  # what a trial has reported, an epoch each


def written(folder: Path, text: str) -> Path:
    """The text as a search's configuration file."""
    path = folder / "search-config.toml"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Place:
    """A folder for temporary files of its own, by which Ray's processes are told from those of others."""

    folder: Path

    def command(self, *words: object, **variables: object) -> "subprocess.CompletedProcess[str]":
        """`mtan experiments` in a process of its own, to its end, after which nothing is left of its Ray."""
        done = subprocess.run(
            command(*words), capture_output=True, text=True, timeout=600, check=False, env=self.environment(**variables)
        )
        if done.returncode >= 0:
            assert self.left() == []
        wait_until(lambda: not self.left(), 60)  # killed: soon
        return done

    def environment(self, **variables: object) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.folder), **{name: str(value) for name, value in variables.items()}}

    def left(self) -> list[object]:
        """Processes and folders of Ray's."""
        return [*members(str(self.folder)), *self.folder.glob("mtan-*")]

    def killed(self, victims: dict[str, int], *words: object, **variables: object) -> "Killed":
        """The command, with a killer at work in each trial of `victims`, by the killers' names."""
        callbacks = ",".join(f"tests.experiments.killers.{name}" for name in victims)
        done = self.command(
            *words, RAY_TUNE_CALLBACKS=callbacks, VICTIMS=json.dumps(victims), KILLED=self.folder, **variables
        )
        marks = {name: self.folder / f"killed-{name}" for name in victims}
        assert all(mark.exists() for mark in marks.values()), done.stderr
        return Killed(done, {name: json.loads(mark.read_text()) for name, mark in marks.items()})


@dataclass(frozen=True)
class Killed:
    """A command of which something was killed: what it left, and the process of each killed trial."""

    done: "subprocess.CompletedProcess[str]"
    processes: dict[str, int]


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from experiments.cli import main; main()", "experiments", *map(str, words)]


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def lines_of(out: Path) -> list[Lines]:
    """What each trial of a search in a folder has reported, by its number."""
    files = sorted(out.glob("ray/*/result.json"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def epochs_of(out: Path) -> dict[int, list[int]]:
    """The epochs of each trial in the table."""
    table = pd.read_parquet(out / "trials.parquet")
    return {int(trial): list(rows["epoch"]) for trial, rows in table.groupby("trial")}


def went_on(lines: Lines, process: int) -> bool:
    """Whether a trial killed in a process went on in another one from a checkpoint, not from the beginning, to its end."""
    later = [line["epoch"] for line in lines if line["pid"] != process]
    return bool(later) and later[0] > 1 and later[-1] == lines[-1]["epochs"]
