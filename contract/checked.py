"""Which bundles were checked whole on this machine, so that a restart need not read them again.

A bundle is known by its files: device, inode, size and time of the last change. The kernel sets
that time at every write, and no program can set it back, as it can the time of the modification
(inode(7), `st_ctim`). What this does not see is a disk that returns other bytes than were written.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from io import FileIO
from pathlib import Path

log = logging.getLogger("tandem.checked")

CHECKS = 1
"""To be raised with every check that `open_bundle` gains: what was checked without it is not known
to have passed."""
TICK_SECONDS = 2.0
"""The coarsest clock of a file system: two changes within one tick look alike."""


class Checked:
    """Keeps it in a file, which processes share, and which may be deleted at any time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextmanager
    def once(self, bundle: Path, files: Mapping[str, os.stat_result]) -> Iterator[bool]:
        """Whether the bundle was checked with these files. It counts as checked when the body ends
        without an error. One process at a time is in the body; those that wait know it after."""
        mark, settled = _mark(files), _settled(files)
        held = self._open()
        with held or nullcontext():
            known = _read(held) if held else {}
            yes = known.get(str(bundle)) == mark
            yield yes
            if held and settled and not yes:
                there = {path: of for path, of in known.items() if Path(path).is_dir()}
                self._write(held, there | {str(bundle): mark})

    def _open(self) -> FileIO | None:
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("%s: %s; bundles are checked whole", self._file, error.strerror)
            return None
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return os.fdopen(descriptor, "rb+", buffering=0)

    def _write(self, file: FileIO, known: Mapping[str, str]) -> None:
        try:
            file.seek(0)
            file.truncate()
            file.write(json.dumps(known).encode())
        except OSError as error:
            log.warning("%s: %s; the next start checks it again", self._file, error.strerror)


def _read(file: FileIO) -> dict[str, str]:
    try:
        known = json.load(file)
    except ValueError:  # new, or of a process that died while it wrote
        return {}
    return known if isinstance(known, dict) else {}


def _mark(files: Mapping[str, os.stat_result]) -> str:
    """Of what is looked at, and what for."""
    found = [(name, s.st_dev, s.st_ino, s.st_size, s.st_ctime_ns) for name, s in files.items()]
    return sha256(json.dumps([CHECKS, sorted(found)]).encode()).hexdigest()


def _settled(files: Mapping[str, os.stat_result]) -> bool:
    """Whether any change from now on shows in the files' times."""
    return max(found.st_ctime for found in files.values()) < time.time() - TICK_SECONDS
