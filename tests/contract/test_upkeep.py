import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contract import upkeep
from contract.errors import StoreError
from contract.store import Channel, LocalStore
from tests.conftest import add_copy
from tests.places import ROOT

WRITES_UNTIL_TOLD = """
import sys
from pathlib import Path
from contract.store import LocalStore
def fill(directory, version):
    print("filling", flush=True)
    sys.stdin.readline()
    raise SystemExit(3)
LocalStore(Path(sys.argv[1])).add(fill)
"""


def made_ago(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def versions(tmp_path: Path) -> LocalStore:
    """A store with bundles v1 to v8, made long ago. `live` points at v5, and was at v1 to v4."""
    store = LocalStore(tmp_path)
    for n in range(1, 9):
        (tmp_path / "bundles" / f"v{n}").mkdir(parents=True)
        made_ago(store.bundle(f"v{n}"), 7200)
    for n in range(1, 6):
        store.point("live", f"v{n}")
    return store


def test_what_dead_processes_have_left_is_found_and_cleared(store: LocalStore) -> None:
    bundles, channels = store.root / "bundles", store.root / "channels"
    before = sorted(path.name for path in (*bundles.iterdir(), *channels.iterdir()))
    staged, removed = bundles / ".staging-a", bundles / ".removed-v9"
    for directory in (staged, removed):
        directory.mkdir()
        (directory / "half.npy").write_bytes(b"half")
    pointing = channels / ".staging-b"
    pointing.write_text("{")
    for path in (staged, pointing):
        made_ago(path, 120)

    assert upkeep.rests(store.root) == sorted([staged, removed, pointing])
    for path in upkeep.rests(store.root):
        upkeep.clear(path)

    assert upkeep.rests(store.root) == []
    assert sorted(path.name for path in (*bundles.iterdir(), *channels.iterdir())) == before


def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITES_UNTIL_TOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout
    assert writer.stdout.readline() == b"filling\n"
    (staged,) = (tmp_path / "bundles").iterdir()
    made_ago(staged, 7200)

    while_it_lived = upkeep.rests(tmp_path)
    writer.kill()
    writer.communicate()

    assert while_it_lived == []
    assert upkeep.rests(tmp_path) == [staged]


def test_what_was_staged_a_moment_ago_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bundles" / ".staging-new").mkdir(parents=True)

    assert upkeep.rests(tmp_path) == []


def test_collecting_keeps_what_channels_name_and_named_last(versions: LocalStore) -> None:
    versions.point("beta", "v7")
    made_ago(versions.bundle("v8"), 10)

    assert upkeep.collectable(versions, 1) == ["v1", "v2", "v3", "v6"]
    assert upkeep.collectable(versions, 3) == ["v1", "v6"]
    assert upkeep.collectable(versions, 9) == ["v6"]


def test_a_bundle_that_is_removed_is_gone(versions: LocalStore) -> None:
    assert upkeep.remove(versions, "v1")

    assert versions.versions() == [f"v{n}" for n in range(2, 9)]
    assert list((versions.root / "bundles").glob(".*")) == []
    with pytest.raises(StoreError, match="no bundle 'v1'"):
        upkeep.remove(versions, "v1")


def test_a_bundle_that_a_channel_was_pointed_at_meanwhile_stays(versions: LocalStore) -> None:
    assert "v6" in upkeep.collectable(versions, 3)
    versions.point("beta", "v6")

    assert not upkeep.remove(versions, "v6")

    assert "v6" in versions.versions()


def test_files_that_are_no_channels_and_no_bundles_are_left_out(versions: LocalStore) -> None:
    (versions.root / "channels" / "live (copy).json").write_text("x")
    (versions.root / "bundles" / "README.txt").write_text("x")
    made_ago(versions.root / "bundles" / "README.txt", 7200)

    assert upkeep.channels(versions) == {"live": versions.channel("live")}
    assert upkeep.collectable(versions, 9) == ["v6", "v7", "v8"]
    assert upkeep.remove(versions, "v6")


def test_retreating_forgets_what_came_after(versions: LocalStore) -> None:
    assert versions.retreat("live", "v2") == Channel(version="v2", previous=("v1",))

    with pytest.raises(StoreError, match=r"channel 'live' of .* has not pointed at v4 before"):
        versions.retreat("live", "v4")
    with pytest.raises(StoreError, match=r"channel 'none' of .* has not pointed at v1 before"):
        versions.retreat("none", "v1")


def test_a_damaged_bundle_is_set_aside_under_a_name_that_no_reader_takes(
    store: LocalStore,
) -> None:
    version = add_copy(store)
    content = {path.name for path in store.bundle(version).iterdir()}

    aside = upkeep.set_aside(store, version)

    assert version not in store.versions()
    assert {path.name for path in aside.iterdir()} == content
