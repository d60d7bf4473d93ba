"""Where bundles live: immutable versions, and channels that each point at one of them.

- STORE/bundles/<version>/: a bundle
- STORE/channels/<name>.json: {"version": .., "previous": [.., ..]}, replaced atomically
"""

import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import DiskError, StoreError
from contract.files import STAGING, locked, read_small, sync

if TYPE_CHECKING:
    from contract.manifest import Manifest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
KEPT_PREVIOUS = 50


class Channel(BaseModel):
    """`previous` are the versions it pointed at before, the latest last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    previous: tuple[str, ...] = ()


class Store(Protocol):
    def versions(self) -> list[str]:
        """All complete bundles, oldest first: the directories that have the name of a version."""
        ...

    def bundle(self, version: str) -> Path:
        """The local directory of a version. Raises StoreError when there is none."""
        ...

    def add(self, fill: Callable[[Path, str], "Manifest"]) -> "Manifest":
        """Write a new bundle through `fill(directory, version)`, complete or not at all. Raises
        DiskError where the store cannot be written, as `point` and `rollback` do."""
        ...

    def channels(self) -> dict[str, Channel]:
        """By name; a file that has not the name of a channel is none. Raises StoreError where one
        cannot be read."""
        ...

    def channel(self, name: str) -> Channel | None: ...

    def point(self, name: str, version: str) -> Channel:
        """Let a channel point at a version, atomically. A move waits for one that is under way, as
        `rollback` and `retreat` do, and begins where that has ended."""
        ...

    def rollback(self, name: str, to: str | None = None) -> Channel:
        """Point a channel at `to`, or at what it pointed at before. Raises StoreError when there is
        nothing to go back to."""
        ...

    def retreat(self, name: str, to: str) -> Channel:
        """Point a channel at `to`, one of those it pointed at before, and forget what came after.
        Raises StoreError when it is none of them."""
        ...


class LocalStore:
    """A store in a directory of this machine or of a shared file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def versions(self) -> list[str]:
        try:
            found = list((self.root / "bundles").iterdir())
        except FileNotFoundError:
            return []
        return sorted(path.name for path in found if NAME.fullmatch(path.name) and path.is_dir())

    def bundle(self, version: str) -> Path:
        path = self.root / "bundles" / _checked(version, "version")
        if not path.is_dir():
            known = ", ".join(self.versions()[-3:]) or "none"
            raise StoreError(f"{self.root}: no bundle '{version}'; the newest are {known}")
        return path

    def add(self, fill: Callable[[Path, str], "Manifest"]) -> "Manifest":
        # Whoever only looks into a store does without numpy.
        from contract.bundle import write_bundle

        version = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:-3] + f"-{secrets.token_hex(2)}"
        destination = self.root / "bundles" / version
        with _explained(destination):
            return write_bundle(destination, lambda directory: fill(directory, version))

    def channels(self) -> dict[str, Channel]:
        found = {name: self.channel(name) for name in self.channel_names()}
        return {name: channel for name, channel in found.items() if channel}

    def channel_names(self) -> list[str]:
        """Of all channels, also of those that cannot be read."""
        names = (path.stem for path in (self.root / "channels").glob("*.json"))
        return sorted(name for name in names if NAME.fullmatch(name))

    def channel(self, name: str) -> Channel | None:
        path = self._channel_path(name)
        try:
            return Channel.model_validate_json(read_small(path))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StoreError(
                f"{path}: not a channel file; see what 'tandem doctor --store {self.root}' says"
            ) from error

    def point(self, name: str, version: str) -> Channel:
        self.bundle(version)
        path = self._channel_path(name)
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._moving(name) as now:
            return self._pointed(name, now, version)

    def rollback(self, name: str, to: str | None = None) -> Channel:
        with self._moving(name) as now:
            if now is None:
                raise StoreError(f"channel '{name}' of {self.root} points at nothing yet")
            if to is not None:
                self.bundle(to)
                return self._pointed(name, now, to)
            if not now.previous:
                raise StoreError(
                    f"channel '{name}' of {self.root} has no version before {now.version}"
                )
            return self._retreated(name, now, now.previous[-1])

    def retreat(self, name: str, to: str) -> Channel:
        with self._moving(name) as now:
            if now is None or to not in now.previous:
                raise StoreError(f"channel '{name}' of {self.root} has not pointed at {to} before")
            return self._retreated(name, now, to)

    @contextmanager
    def _moving(self, name: str) -> Iterator[Channel | None]:
        """What the channel points at, while no one else moves it."""
        directory = self._channel_path(name).parent
        with locked(directory) if directory.is_dir() else nullcontext():
            yield self.channel(name)

    def _pointed(self, name: str, now: Channel | None, version: str) -> Channel:
        if now and now.version == version:
            return now
        previous = (*now.previous, now.version)[-KEPT_PREVIOUS:] if now else ()
        return self._write(name, Channel(version=version, previous=previous))

    def _retreated(self, name: str, now: Channel, to: str) -> Channel:
        self.bundle(to)
        at = len(now.previous) - 1 - now.previous[::-1].index(to)
        return self._write(name, Channel(version=to, previous=now.previous[:at]))

    def _write(self, name: str, channel: Channel) -> Channel:
        path = self._channel_path(name)
        with _explained(path):
            _replace(path, channel.model_dump_json())
        return channel

    def _channel_path(self, name: str) -> Path:
        return self.root / "channels" / f"{_checked(name, 'channel')}.json"


def _replace(path: Path, text: str) -> None:
    """Atomically and durably: whoever reads finds what was there or all of this."""
    descriptor, name = tempfile.mkstemp(prefix=STAGING, dir=path.parent)
    staged = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.chmod(0o644)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path}: cannot be written ({error.strerror or error}); see that the disk "
            "has room and may be written, then try again"
        ) from error


def open_store(uri: str) -> LocalStore:
    """A path, or `file://path`. Raises StoreError for another scheme."""
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return LocalStore(Path(uri))
    if scheme == "file":
        return LocalStore(Path(rest))
    raise StoreError(f"store '{uri}': scheme '{scheme}' is not supported; give a path")


def _checked(name: str, what: str) -> str:
    if not NAME.fullmatch(name):
        raise StoreError(f"{what} '{name}': expected letters, digits, '.', '_' and '-'")
    return name
