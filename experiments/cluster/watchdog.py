"""A process of its own that outlives a search by a moment, and leaves nothing of the Ray that the search started.

Where a search is killed, agents of Ray's stay for a minute or more, and its folder for good. This process waits until
the search is gone, whether it ended or was killed, kills what belongs to its Ray and removes the folder. It is run as a
file, without the package: it must be small, and start at once.
"""

import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PATIENCE = 20.0  # seconds for processes to die of SIGKILL


def main(folder: str) -> None:
    """Wait for the end of standard input, which the search holds open, or for the search's death; then clean up."""
    search = os.getppid()
    while os.getppid() == search:
        if select.select([sys.stdin], [], [], 1.0)[0]:
            break
    deadline = time.monotonic() + PATIENCE
    while (found := members(folder)) and time.monotonic() < deadline:
        for process in found:
            kill(process)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def members(folder: str) -> list[int]:
    """The processes of the Ray whose folder this is: named so in their command line, or writing files within."""
    mark = os.fsencode(folder)
    own = (os.getpid(), os.getppid())
    entries = Path("/proc").glob("[0-9]*")
    return [int(entry.name) for entry in entries if int(entry.name) not in own and _belongs(entry, mark)]


def _belongs(process: Path, mark: bytes) -> bool:
    try:
        if mark in (process / "cmdline").read_bytes():
            return True
        return any(os.fsencode(os.readlink(file)).startswith(mark + b"/") for file in (process / "fd").iterdir())
    except OSError:  # gone, or not ours
        return False


def kill(process: int) -> None:
    """SIGKILL, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
