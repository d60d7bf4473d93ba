"""The one place where a channel moves, for publishing and for rolling back.

A hosted index is there before the channel points at its bundle, and its server is told after. What
no channel points at any more is removed from the server when its grace period is over.
"""

import logging
from pathlib import Path

from contract.bundle import open_bundle
from contract.errors import BackendError
from contract.index import Hosted, hosted, params_from
from contract.store import Channel, Store

log = logging.getLogger("tandem.channels")


def point(store: Store, name: str, version: str) -> Channel:
    """Let a channel point at a version; raises what `Store.point` raises, and BackendError, the
    channel unmoved, where the index of the version is gone and cannot be built again."""
    _restore(store.bundle(version))
    return _announced(store, name, store.point(name, version))


def rollback(store: Store, name: str, to: str | None = None) -> Channel:
    """Point a channel at `to`, or at what it pointed at before; raises as `Store.rollback` and
    `point` do."""
    now = store.channel(name)
    target = to or (now.previous[-1] if now and now.previous else None)
    if now and target:
        _restore(store.bundle(target))
    return _announced(store, name, store.rollback(name, to))


def retreat(store: Store, name: str, to: str) -> Channel:
    """Point a channel back at `to` and forget what came after; raises as `Store.retreat` and
    `point` do."""
    _restore(store.bundle(to))
    return _announced(store, name, store.retreat(name, to))


def _restore(directory: Path) -> None:
    found = hosted(directory)
    if found is None:
        return
    backend, path = found
    if not backend.exists(path):
        bundle = open_bundle(directory)
        build = params_from(backend.Build, bundle.manifest.index.build)
        backend.restore(path, bundle.item_vectors, build)


def _announced(store: Store, name: str, channel: Channel) -> Channel:
    """The channel, when the server of its index knows."""
    found = hosted(store.bundle(channel.version))
    if found is None:
        return channel
    backend, path = found
    try:
        backend.activate(path, name)
    except BackendError as error:
        raise BackendError(
            f"channel '{name}' points at {channel.version}, and its server was not told: {error}"
        ) from error
    try:
        _retire(store, backend)
    except BackendError as error:
        # The next move of a channel tries again.
        log.warning("channel '%s' has moved; what it left is not removed yet: %s", name, error)
    return channel


def _retire(store: Store, backend: type[Hosted]) -> None:
    pointed = {channel.version for channel in store.channels().values()}
    paths = {version: store.bundle(version) / backend.filename for version in store.versions()}
    there = {version: path for version, path in paths.items() if path.is_file()}
    backend.retire(
        [path for version, path in there.items() if version in pointed],
        [path for version, path in there.items() if version not in pointed],
    )
