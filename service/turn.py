"""Taking turns: what one process of a machine does at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(file: Path) -> Iterator[None]:
    """Waits until no other process holds this file. The kernel lets go for a process that died."""
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
