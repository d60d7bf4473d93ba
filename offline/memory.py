"""Memory of a process that makes and frees large tensors at every step."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**31 - 1


def keep_freed() -> None:
    """Keep what is freed for what is made next. The C library would give every large block back to
    the system, and each page of the next one costs a fault again: more than the work on it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, others need not
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, KEPT)
        mallopt(TRIM_THRESHOLD, KEPT)
