"""The upkeep of a store in a directory: what is left there by processes that died, and what may go.

Nothing is taken away under its name: it is renamed first, so that it is whole or gone for readers,
and a removal that dies is a rest for the next one.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from contract.errors import StoreError
from contract.files import STAGING, sync
from contract.index import discard_index
from contract.store import Channel, LocalStore

REMOVED, DAMAGED = ".removed-", ".damaged-"
YOUNG_SECONDS = 60.0
"""What is younger may be about to be locked by who has made it."""
UNPOINTED_SECONDS = 3600.0
"""A bundle that is younger may be about to be pointed at."""


def rests(root: Path) -> list[Path]:
    """Of publishes, moves and removals that died: what no one has use for."""
    bundles, channels = root / "bundles", root / "channels"
    staged = [*bundles.glob(f"{STAGING}*"), *channels.glob(f"{STAGING}*")]
    removed = bundles.glob(f"{REMOVED}*")
    return sorted([*(path for path in staged if _abandoned(path)), *removed])


def channels(store: LocalStore) -> dict[str, Channel | StoreError]:
    """Each channel, or why it cannot be read, where the store would raise for all of them."""
    found = dict[str, Channel | StoreError]()
    for name in store.channel_names():
        try:
            channel = store.channel(name)
        except StoreError as error:
            found[name] = error
        else:
            found |= {name: channel} if channel else {}
    return found


def collectable(store: LocalStore, keep: int) -> list[str]:
    """The versions that no channel names, oldest first, but for the `keep` that each channel named
    last before, and for those that are just being published."""
    kept = {version for channel in store.channels().values() for version in _reach(channel, keep)}
    return [
        version
        for version in store.versions()
        if version not in kept and _age(store.bundle(version)) > UNPOINTED_SECONDS
    ]


def remove(store: LocalStore, version: str) -> bool:
    """Remove a bundle, and what its index keeps on a server; whether it is gone: one that a channel
    was pointed at meanwhile stays. Raises StoreError where there is none."""
    bundle = store.bundle(version)
    removed = bundle.with_name(f"{REMOVED}{version}")
    _rename(bundle, removed)
    if version in named(store.channels()):
        _rename(removed, bundle)
        return False
    clear(removed)
    return True


def clear(rest: Path) -> None:
    """Remove a rest."""
    if rest.is_dir():
        discard_index(rest)
        shutil.rmtree(rest)
    else:
        rest.unlink()
    sync(rest.parent)


def set_aside(store: LocalStore, version: str) -> Path:
    """Rename a damaged bundle, so that no one takes it for one; where it is now."""
    bundle = store.bundle(version)
    aside = bundle.with_name(f"{DAMAGED}{version}")
    _rename(bundle, aside)
    return aside


def named(channels: Mapping[str, Channel]) -> set[str]:
    return {channel.version for channel in channels.values()}


def _reach(channel: Channel, keep: int) -> tuple[str, ...]:
    return (channel.version, *channel.previous[-keep:])


def _rename(path: Path, to: Path) -> None:
    path.rename(to)
    sync(path.parent)


def _abandoned(path: Path) -> bool:
    """Whether whoever staged this is dead: a publisher holds a lock on what it fills."""
    try:
        if _age(path) < YOUNG_SECONDS:
            return False
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime
