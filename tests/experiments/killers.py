"""Callbacks of Ray Tune that kill a part of a search at a chosen moment, named in RAY_TUNE_CALLBACKS.

A trial waits while its result is dealt with, so what is killed is in its middle however fast the machine is.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

from pyarrow import fs
from ray.tune import Callback

AFTER = 3  # epochs of the trial that is killed


class Killer(Callback):
    """Kills once, after some epochs of its trial, when Ray's state in the storage knows a checkpoint of it.

    The trial's number is in VICTIMS by the killer's name; what was killed is written into the folder KILLED.
    """

    def __init__(self) -> None:
        name = type(self).__name__
        self.victim = json.loads(os.environ["VICTIMS"])[name]
        self.mark = Path(os.environ["KILLED"]) / f"killed-{name}"

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        if int(Path(trial.path).name) != self.victim or result["epoch"] < AFTER or self.mark.exists():
            return
        if not known(trial):  # perhaps after its next epoch; who finds no mark at the end knows that it never was
            return
        self.mark.write_text(json.dumps(result["pid"]))
        self.kill(result["pid"])

    def kill(self, worker: int) -> None:
        raise NotImplementedError


class Driver(Killer):
    """The search's own process."""

    def kill(self, worker: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Ended(Driver):
    """The search's own process when its trial has just ended, of which Ray's state in the storage does not know."""

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        pass

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if int(Path(trial.path).name) == self.victim and not self.mark.exists():
            self.mark.write_text(json.dumps(os.getpid()))
            self.kill(0)


class Stop(Killer):
    """The search's own process, which is asked to stop."""

    def kill(self, worker: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class Worker(Killer):
    """The trial's process."""

    def kill(self, worker: int) -> None:
        os.kill(worker, signal.SIGKILL)


class Node(Killer):
    """The node on which the trial runs: its raylet, then the worker, which is the raylet's child."""

    def kill(self, worker: int) -> None:
        raylet = int((Path("/proc") / str(worker) / "stat").read_text().rpartition(")")[2].split()[1])
        os.kill(raylet, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)


def known(trial: Any) -> bool:
    """Whether the newest state in the storage has the trial's second checkpoint, and so its first."""
    storage = trial.storage
    selector = fs.FileSelector(storage.experiment_fs_path)
    states = sorted(
        info.path
        for info in storage.storage_filesystem.get_file_info(selector)
        if info.base_name.startswith("experiment_state-")
    )
    if not states:
        return False
    with storage.storage_filesystem.open_input_stream(states[-1]) as stream:
        state = json.loads(stream.readall())
    for described, metadata in state["trial_data"]:
        if json.loads(described)["trial_id"] == trial.trial_id:
            last = json.loads(metadata)["last_result"] or {}
            return bool(last.get("checkpoint_dir_name", "") > "checkpoint_000000")
    return False
