"""Memory that a process keeps between training steps."""

import ctypes

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
