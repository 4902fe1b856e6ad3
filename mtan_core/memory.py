"""Memory: what a process keeps between training steps, what is free, and what cannot fit."""

import ctypes
from pathlib import Path

import torch

from mtan_core.errors import UserError

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # names of mallopt(3)


def keep_memory() -> bool:
    """Let the C library keep what a step frees, so that the next step need not have it mapped and zeroed anew.

    glibc maps every tensor beyond 32 MB afresh and gives freed memory back, which costs a large network on the CPU tens
    of thousands of page faults a step; every thread but the first has memory of its own, which cannot hold large tensors
    at all. Holds for the whole process, whose memory then never shrinks below its peak. Call it before the first step
    and before threads begin; elsewhere than on glibc it does nothing and returns False.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 * 2**20))
    return hasattr(library, "mallopt") and all(library.mallopt(*setting) == 1 for setting in settings)


def available_memory(device: torch.device) -> int:
    """Bytes that are free on the device (CPU: of the machine, or of the container's limit)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limit = Path("/sys/fs/cgroup/memory.max")
    bound = int(limit.read_text()) if limit.is_file() and limit.read_text().strip().isdigit() else 2**63
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return min(bound, int(fields["MemAvailable"].split()[0]) * 1024)
    return bound


def refuse_beyond(free: int, needed: int, what: str, advice: str) -> None:
    """Raises UserError when more bytes are needed than are free; `what` needs them, `advice` says how to need less."""
    if needed > free:
        raise UserError(
            f"Expected at most {free / 2**30:.1f} GiB of memory, found that {what} about {needed / 2**30:.1f} GiB: {advice}."
        )
