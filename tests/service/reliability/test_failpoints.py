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
from pathlib import Path

import pytest

from contract.bundle import open_bundle
from contract.journal import Entry, opened_journal
from contract.store import LocalStore
from tests.places import ROOT, program
from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import found, lasting

CHANGES = "write,pwrite64,fsync,fdatasync,rename,unlink,ftruncate"
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
) -> int:
    """Runs the script again and again, killed as it enters one of its calls, each in its turn, or
    every so many of them; how often it died."""
    return sum(deaths_at(strace, call, script, arrange, check, step) for call in CHANGES.split(","))


def deaths_at(
    strace: str,
    call: str,
    script: str,
    arrange: Callable[[], list[object]],
    check: Callable[[bool], None],
    step: int,
) -> int:
    for deaths, n in enumerate(range(1, 10_000, step)):
        given = arrange()
        inject = f"inject={call}:signal=SIGKILL:when={n}"
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
