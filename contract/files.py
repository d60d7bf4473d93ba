"""Files: small ones that someone else may have written, and what makes a change durable."""

import os
import stat
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
