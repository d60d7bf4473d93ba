"""What is wrong with a store, and what a repair does about it. Looks as a service would, and needs
none to be stopped."""

import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from contract import channels, upkeep
from contract.errors import BundleError, FormatError, StoreError
from contract.store import Channel, LocalStore
from service.doctor.finding import Finding
from service.snapshot import load_snapshot

Verdicts = Mapping[str, Exception | None]
"""Version -> what a service would refuse it for."""


def examine(store: LocalStore, keep: int | None) -> list[Finding]:
    """`keep`: collect old bundles, but for so many of each channel. To be cured in this order: a
    bundle is set aside when no channel points at it any more."""
    verdicts = {version: _judged(store.bundle(version)) for version in store.versions()}
    known = upkeep.channels(store)
    pointing = {name: found for name, found in known.items() if isinstance(found, Channel)}
    return [
        *(_channel(store, name, found, verdicts, pointing) for name, found in known.items()),
        *(_bundle(store, version, verdicts, pointing) for version in verdicts),
        *map(_rest, upkeep.rests(store.root)),
        *(_old(store, version, keep) for version in _collected(store, keep, known)),
        *_room(store),
    ]


def _judged(path: Path) -> Exception | None:
    try:
        load_snapshot(path)
    # Whatever else a bundle makes its readers raise: a service refuses it for that too.
    except Exception as error:
        return error
    return None


def _bundle(
    store: LocalStore, version: str, verdicts: Verdicts, pointing: Mapping[str, Channel]
) -> Finding:
    what, error = f"bundle {version}", verdicts[version]
    naming = [name for name, channel in pointing.items() if channel.version == version]
    if error is None:
        return Finding(what, f"sound; {', '.join(naming) or 'no channel'} points at it")
    if isinstance(error, FormatError) or not isinstance(error, BundleError):
        return Finding(what, str(error), trouble=True)
    if any(_good_before(pointing[name], verdicts) is None for name in naming):
        return Finding(what, str(error), "publish another one", trouble=True)

    def cure() -> str:
        if version in upkeep.named(store.channels()):
            return "stays: a channel points at it"
        return f"is {upkeep.set_aside(store, version)} now"

    return Finding(what, str(error), f"rename it to {upkeep.DAMAGED}{version}", True, cure)


def _channel(
    store: LocalStore,
    name: str,
    found: Channel | StoreError,
    verdicts: Verdicts,
    pointing: Mapping[str, Channel],
) -> Finding:
    what = f"channel {name}"
    if isinstance(found, StoreError):
        return _unreadable(store, name, found, verdicts, pointing)
    if found.version in verdicts and verdicts[found.version] is None:
        return Finding(what, f"points at {found.version}")
    bad = "damaged" if found.version in verdicts else "not there"
    trouble = f"points at {found.version}, which is {bad}"
    good = _good_before(found, verdicts)
    if good is None:
        return Finding(what, trouble, "publish to it: no bundle before is sound", True)

    def cure() -> str:
        if store.channel(name) != found:
            return "was moved meanwhile and is left alone"
        return f"points at {channels.retreat(store, name, good).version}"

    return Finding(what, trouble, f"point it back at {good}", True, cure)


def _unreadable(
    store: LocalStore,
    name: str,
    error: StoreError,
    verdicts: Verdicts,
    pointing: Mapping[str, Channel],
) -> Finding:
    """What it pointed at is lost: most likely the newest that no other channel points at."""
    path = store.root / "channels" / f"{name}.json"
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    sound = [version for version, problem in verdicts.items() if problem is None]
    free = [version for version in sound if version not in upkeep.named(pointing)]
    target = next(reversed(free or sound), None)

    def cure() -> str:
        path.rename(aside)
        if target is None:
            return f"is {aside} now, and the channel points at nothing"
        return f"is {aside} now, and {channels.point(store, name, target).version} pointed at"

    advice = f"rename it to {aside.name}"
    advice += f", and point the channel at {target}" if target else "; then publish to it"
    return Finding(f"channel {name}", str(error), advice, True, cure)


def _good_before(channel: Channel, verdicts: Verdicts) -> str | None:
    """The version that the channel named last of those that are sound."""
    before = reversed(channel.previous)
    return next((v for v in before if v in verdicts and verdicts[v] is None), None)


def _rest(path: Path) -> Finding:
    def cure() -> str:
        upkeep.clear(path)
        return "is gone"

    found = "left by a publish, a move or a removal that died"
    return Finding(str(path), found, "remove it", True, cure)


def _collected(
    store: LocalStore, keep: int | None, known: Mapping[str, Channel | StoreError]
) -> list[str]:
    """None while a channel cannot be read, for it may name any of them."""
    if keep is None or any(isinstance(found, StoreError) for found in known.values()):
        return []
    return upkeep.collectable(store, keep)


def _old(store: LocalStore, version: str, keep: int | None) -> Finding:
    def cure() -> str:
        return "is gone" if upkeep.remove(store, version) else "stays: a channel points at it"

    found = f"no channel names it, nor is it of the {keep} that one named before"
    return Finding(f"bundle {version}", found, "remove it", cure=cure)


def _room(store: LocalStore) -> Iterator[Finding]:
    if not store.root.exists():
        yield Finding(f"store {store.root}", "nothing is there", "publish to it", True)
        return
    free = shutil.disk_usage(store.root).free
    sizes = [sum(f.stat().st_size for f in store.bundle(v).iterdir()) for v in store.versions()]
    largest = max(sizes, default=0)
    found = f"{free / 2**20:,.0f} MiB free, the largest bundle has {largest / 2**20:,.1f}"
    advice = "make room for another: --collect N removes old ones" if free < largest else ""
    yield Finding(f"store {store.root}", found, advice, bool(advice))
