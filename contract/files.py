"""Files: small ones that someone else may have written, and what makes a change durable or lets
changes wait for each other."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAGING = ".staging-"
"""Begins the name of what is being written and not to be read yet."""
MOST = 64 * 2**20
"""Bytes of a manifest, a channel or golden requests: far more than any that is published."""


def read_small(path: Path) -> bytes:
    """The content of a plain file. Raises FileNotFoundError where there is none, another OSError
    for a link, a pipe, a device, and for more than MOST bytes."""
    # Without O_NONBLOCK, opening a pipe waits for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(None, "not a plain file")
        if found.st_size > MOST:
            raise OSError(None, f"{found.st_size:,} bytes, expected at most {MOST:,}")
        return file.read(MOST)


def sync(path: Path) -> None:
    """fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """One at a time, of all threads and processes; the directory's descriptor. Not to be nested.
    The kernel lets go for a process that died."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
