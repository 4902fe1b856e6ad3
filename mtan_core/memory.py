"""How the process gets its memory from the system."""

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_MEBIBYTE = 1 << 20


@cache
def keep_memory() -> bool:
    """Let malloc keep what a step frees, so that the next step need not fault it in anew; tells whether it could.

    By default glibc maps every large tensor afresh and gives it back at once, which can cost a training step on the CPU
    more than its batch norms. The process keeps its peak memory from now on. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 256 * _MEBIBYTE}
    return all(mallopt(name, value) for name, value in settings.items())
