"""Death at every step to the disk, and the order of these steps, by the system calls themselves.

strace kills a process as it enters its n-th call that changes a file, for every n: before and after
each write, fsync and rename. What is found then is a state of before or of after, and the latter if
it was acknowledged. Power may fail where the order is right: data, fsync, name, fsync of the
directory, acknowledgement.
"""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from contract import upkeep
from contract.bundle import open_bundle
from contract.changes import fold
from contract.journal import Entry, open_journal, opened_journal
from contract.manifest import read_manifest
from contract.salvage import problems, repair
from contract.store import LocalStore
from tests.places import ROOT, program
from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import LENGTH, found, lasting

CHANGES = "write,pwrite64,fsync,fdatasync,rename,unlink,ftruncate"
REMOVALS = ("rename", "rename,fsync,unlinkat,rmdir")[LENGTH > 0]
REPLACEMENTS = ("rename,unlink", "mkdir,link,pwrite64,fsync,fdatasync,rename,unlink")[LENGTH > 0]
COMPACTIONS = ("rename", CHANGES)[LENGTH > 0]
ACKNOWLEDGED = b"acknowledged"

# Each ends with an acknowledgement that is a write itself.
APPEND = """
import os, sys
from contract.journal import Entry, GroupCommit, open_journal
journal = open_journal(sys.argv[1])
pair = [Entry("item", {"item_id": name}) for name in ("a", "b")]
GroupCommit(journal).submit(pair).result()
os.write(1, b"acknowledged")
os._exit(0)
"""
POINT = """
import os, sys
from pathlib import Path
from contract.store import LocalStore
LocalStore(Path(sys.argv[1])).point("live", sys.argv[2])
os.write(1, b"acknowledged")
os._exit(0)
"""
PUBLISH = """
import os, shutil, sys
from pathlib import Path
from contract.manifest import read_manifest
from contract.store import LocalStore
source = Path(sys.argv[2])
def fill(directory, version):
    manifest = read_manifest(source)
    for name in manifest.files:
        os.link(source / name, directory / name)
    return manifest.model_copy(update={"version": version})
LocalStore(Path(sys.argv[1])).add(fill)
os.write(1, b"acknowledged")
os._exit(0)
"""
COMPACT = """
import os, sys
from pathlib import Path
from contract.journal import open_journal
from contract.store import LocalStore
from offline.compact import compact
compact(LocalStore(Path(sys.argv[1])), open_journal(sys.argv[2]), "live", keep=0)
os.write(1, b"acknowledged")
os._exit(0)
"""
COLLECT = """
import os, sys
from pathlib import Path
from contract import upkeep
from contract.store import LocalStore
assert upkeep.remove(LocalStore(Path(sys.argv[1])), sys.argv[2])
os.write(1, b"acknowledged")
os._exit(0)
"""
REPAIR = """
import os, sys
from pathlib import Path
from contract.salvage import repair
repair(Path(sys.argv[1]), 0)
os.write(1, b"acknowledged")
os._exit(0)
"""
POSTED = [f"posted-{n}" for n in range(40)]


@pytest.fixture(scope="session")
def strace() -> str:
    return program("strace", "strace")


def traced(strace: str, options: list[str], script: str, *given: object) -> tuple[int, bytes]:
    command = [strace, "-f", "-qq", *options, sys.executable, "-B", "-c", script, *map(str, given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return done.returncode, done.stdout


def die_everywhere(
    strace: str,
    script: str,
    arrange: Callable[[], list[object]],
    check: Callable[[bool], None],
    step: int = 1,
    calls: str = CHANGES,
    fault: str = "signal=SIGKILL",
) -> int:
    """Runs the script again and again, killed as it enters one of its calls, each in its turn, or
    every so many of them; how often it died."""
    return sum(
        deaths_at(strace, call, script, arrange, check, step, fault) for call in calls.split(",")
    )


def deaths_at(
    strace: str,
    call: str,
    script: str,
    arrange: Callable[[], list[object]],
    check: Callable[[bool], None],
    step: int,
    fault: str,
) -> int:
    for deaths, n in enumerate(range(1, 10_000, step)):
        given = arrange()
        inject = f"inject={call}:{fault}:when={n}"
        options = ["-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        code, output = traced(strace, options, script, *given)
        check(output == ACKNOWLEDGED)
        if code == 0:
            assert output == ACKNOWLEDGED
            return deaths
    raise AssertionError(f"the script never came to the end of its {call}")


def items_of(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT body FROM entries ORDER BY seq").fetchall()
    return [json.loads(body)["item_id"] for (body,) in rows]


@pytest.mark.parametrize("there", [True, False], ids=["an old journal", "a new journal"])
def test_a_commit_that_dies_leaves_all_of_it_or_nothing(
    strace: str, tmp_path: Path, there: bool
) -> None:
    path = tmp_path / "state" / "journal.db"
    old = ["old"] if there else []

    def arrange() -> list[object]:
        shutil.rmtree(path.parent, ignore_errors=True)
        if there:
            shutil.copytree(tmp_path / "template", path.parent)
        return [path]

    def check(acknowledged: bool) -> None:
        if not path.exists():
            assert not acknowledged
            return
        with opened_journal(str(path)) as journal:
            before = journal.last_seq()
            assert journal.append([Entry("item", {"item_id": "next"})]) == range(
                before + 1, before + 2
            )
        left = items_of(path)[:-1]
        assert left in ([*old, "a", "b"], *([] if acknowledged else [old]))

    if there:
        template = tmp_path / "template" / "journal.db"
        code, _ = traced(
            strace, ["-o", "/dev/null"], APPEND.replace('("a", "b")', '("old",)'), template
        )
        assert code == 0
    deaths = die_everywhere(strace, APPEND, arrange, check, step=lasting(4, 1, 1))

    assert deaths >= 3
    which = "old" if there else "new"
    found(
        f"failpoints: a commit to {which} journal", "all or nothing", f"{deaths} deaths, 0 halves"
    )


def test_a_channel_that_moves_points_at_one_of_the_two(strace: str, floor: Floor) -> None:
    root, (before, after) = floor.store.root, floor.versions

    def arrange() -> list[object]:
        floor.store.point("live", before)
        return [root, after]

    def check(acknowledged: bool) -> None:
        version = json.loads((root / "channels" / "live.json").read_text())["version"]
        assert version == after or (version == before and not acknowledged)

    deaths = die_everywhere(strace, POINT, arrange, check)

    assert deaths >= 4
    found("failpoints: a move of a channel", "before or after", f"{deaths} deaths, 0 halves")


def test_a_publish_that_dies_leaves_a_whole_bundle_or_none(
    strace: str, floor: Floor, tmp_path: Path
) -> None:
    source = floor.store.bundle(floor.versions[0])
    root = tmp_path / "new"

    def arrange() -> list[object]:
        shutil.rmtree(root, ignore_errors=True)
        return [root, source]

    def check(acknowledged: bool) -> None:
        versions = LocalStore(root).versions()
        assert len(versions) == 1 or (not versions and not acknowledged)
        for version in versions:
            open_bundle(root / "bundles" / version)

    deaths = die_everywhere(strace, PUBLISH, arrange, check, step=lasting(20, 1, 1))

    assert deaths >= 3
    found("failpoints: a publish", "whole or invisible", f"{deaths} deaths, 0 halves")


def test_a_compaction_that_dies_or_finds_the_disk_full_loses_nothing(
    strace: str, floor: Floor, tmp_path: Path
) -> None:
    root, uri = floor.store.root, str(tmp_path / "state" / "journal.db")
    originals = set(known_items(floor.store.root, floor.versions[0]))
    with closing(open_journal(uri)) as journal:
        journal.append([Entry("item", {"item_id": name, "features": {}}) for name in POSTED])
        journal.append([Entry("delete", {"item_id": sorted(originals)[0]})])
    wanted = (originals | set(POSTED)) - {sorted(originals)[0]}
    places = root, Path(uri).parent
    for place in places:
        shutil.copytree(place, tmp_path / "templates" / place.name)

    def arrange() -> list[object]:
        for place in places:
            shutil.rmtree(place)
            shutil.copytree(tmp_path / "templates" / place.name, place)
        return [root, uri]

    def check(acknowledged: bool) -> None:
        for version in LocalStore(root).versions():
            open_bundle(root / "bundles" / version)
        with closing(open_journal(uri)) as journal:
            channel = LocalStore(root).channel("live")
            assert channel
            included = read_manifest(root / "bundles" / channel.version).seq
            changes = fold(journal, included)
        items = known_items(root, channel.version)
        assert (set(items) | changes.items.keys()) - changes.deleted == wanted
        assert (included == len(POSTED) + 1) or not acknowledged

    step, full = lasting(1, 8, 1), "error=ENOSPC"
    deaths = die_everywhere(strace, COMPACT, arrange, check, step, COMPACTIONS)
    errors = die_everywhere(strace, COMPACT, arrange, check, lasting(60, 8, 1), "write", full)

    assert deaths >= 2
    assert errors >= 1
    found("failpoints: a compaction", "nothing lost", f"{deaths} deaths, 0 losses")
    found("the same: the disk full at a write", "nothing lost", f"{errors} times, 0 losses")


def known_items(root: Path, version: str) -> list[str]:
    """The items of a bundle that are not deleted, out of its files alone."""
    bundle = root / "bundles" / version
    text, ends = (np.load(bundle / f"item_ids_{part}.npy") for part in ("text", "offsets"))
    states = np.load(bundle / "item_states.npy")
    names = [bytes(text[one:two]).decode() for one, two in pairwise(ends)]
    return [name for name, state in zip(names, states, strict=True) if state != 2]


def test_a_removal_that_dies_leaves_a_whole_bundle_or_none(strace: str, floor: Floor) -> None:
    root, (live, old) = floor.store.root, floor.versions
    shutil.copytree(floor.store.bundle(old), root / "old")

    def arrange() -> list[object]:
        shutil.rmtree(root / "bundles" / old, ignore_errors=True)
        shutil.copytree(root / "old", root / "bundles" / old)
        return [root, old]

    def check(acknowledged: bool) -> None:
        if old in LocalStore(root).versions():
            assert not acknowledged
            open_bundle(root / "bundles" / old)
        for rest in upkeep.rests(root):
            upkeep.clear(rest)
        assert list((root / "bundles").glob(".*")) == []
        open_bundle(root / "bundles" / live)

    for name in floor.store.channels():
        floor.store.point(name, live)
    deaths = die_everywhere(strace, COLLECT, arrange, check, calls=REMOVALS)

    assert deaths >= 1
    found("failpoints: a removal of a bundle", "whole or gone", f"{deaths} deaths, 0 halves")


def test_a_repair_that_dies_is_gone_on_with(strace: str, tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.db"
    entries = [Entry("item", {"item_id": name * 30}) for name in POSTED]
    with closing(open_journal(str(path))) as journal:
        journal.append(entries[:30])
    # The rest of them is in the log still.
    with closing(open_journal(str(path))) as journal:
        journal.append(entries[30:])
        shutil.copytree(path.parent, tmp_path / "template")
    spoilt = bytearray((tmp_path / "template" / path.name).read_bytes())
    spoilt[:100] = bytes(100)
    (tmp_path / "template" / path.name).write_bytes(spoilt)

    def arrange() -> list[object]:
        shutil.rmtree(path.parent)
        shutil.copytree(tmp_path / "template", path.parent)
        return [path]

    def check(acknowledged: bool) -> None:
        if not acknowledged and problems(path):
            repair(path, 0)
        assert items_of(path) == [name * 30 for name in POSTED]
        (aside,) = path.parent.glob("journal.db-damaged-*")
        assert (aside / path.name).read_bytes() == spoilt

    deaths = die_everywhere(strace, REPAIR, arrange, check, calls=REPLACEMENTS)

    assert deaths >= 2
    found("failpoints: a repair of a journal", "gone on with", f"{deaths} deaths, 0 losses")


@pytest.mark.parametrize(
    ("script", "order"),
    [
        pytest.param(
            APPEND,
            "pwrite64 journal.db-wal, sync journal.db-wal, acknowledged",
            id="append",
        ),
        pytest.param(
            POINT,
            "write .staging-*, sync .staging-*, rename live.json, sync channels, acknowledged",
            id="point",
        ),
        pytest.param(
            PUBLISH,
            "sync item_vectors.npy, write manifest.json, sync manifest.json, sync .staging-*, "
            "rename VERSION, sync bundles, acknowledged",
            id="publish",
        ),
    ],
)
def test_what_is_acknowledged_was_synced_in_this_order(
    strace: str, floor: Floor, tmp_path: Path, script: str, order: str
) -> None:
    given: dict[str, list[object]] = {
        APPEND: [tmp_path / "journal.db"],
        POINT: [floor.store.root, floor.versions[1]],
        PUBLISH: [tmp_path / "new", floor.store.bundle(floor.versions[0])],
    }
    trace = tmp_path / "trace"

    options = ["-y", "-s", "4096", "-o", str(trace), "-e", f"trace={CHANGES}"]
    code, _ = traced(strace, options, script, *given[script])

    assert code == 0
    steps = [step for line in trace.read_text().splitlines() if (step := named(line))]
    # The last time of each, so that nothing is written again after its sync.
    last = {step: place for place, step in enumerate(steps)}
    assert sorted(order.split(", "), key=last.__getitem__) == order.split(", ")
    assert steps[-1] == "acknowledged"


def named(line: str) -> str:
    """A call as what it does to which file: `sync journal.db-wal`."""
    if f'"{ACKNOWLEDGED.decode()}"' in line:
        return "acknowledged"
    if call := re.search(r"rename\(.*\"(.+?)\"\) = 0", line):
        return f"rename {plain(call[1])}"
    if call := re.search(r"(pwrite64|write|fsync|fdatasync)\(\d+<(.+?)>", line):
        verb = "sync" if "sync" in call[1] else call[1]
        return f"{verb} {plain(call[2])}"
    return ""


def plain(path: str) -> str:
    name = Path(path).name
    name = re.sub(r"^\.staging-.*", ".staging-*", name)
    return re.sub(r"^\d{8}T.*", "VERSION", name)
