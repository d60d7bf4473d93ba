"""`tandem doctor --store`: finds what is wrong, does nothing unless asked to, and a service runs on
what it leaves."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tandem
from contract.journal import Entry, open_journal
from contract.store import LocalStore
from tests.conftest import live
from tests.contract.test_bundle import edit_manifest, rewrite
from tests.places import ROOT
from tests.service.bundles import derive
from tests.service.server import Server

PAGE = 4096
HOLDS = """
import sys
from contract.journal import Entry, open_journal
journal = open_journal(sys.argv[1])
journal.append([Entry("delete", {"item_id": "x"})])
print("open", flush=True)
sys.stdin.readline()
"""


def doctor(store: LocalStore, *options: object) -> Result:
    arguments = ["doctor", "--store", store.root, *options]
    return CliRunner().invoke(tandem.main, [str(a) for a in arguments])


def found(store: LocalStore, *options: object) -> dict[str, dict[str, Any]]:
    rows = json.loads(doctor(store, "--json", *options).stdout)
    return {row["what"]: row for row in rows}


def tree(root: Path) -> dict[str, int]:
    """Every file and when it was changed; but for what SQLite makes to read."""
    shared = ("-shm", "-wal")
    files = (p for p in root.rglob("*") if p.is_file() and not p.name.endswith(shared))
    return {str(path): path.lstat().st_mtime_ns for path in files}


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    rewrite(path, bytes(content))


@pytest.fixture
def three(store: LocalStore) -> tuple[LocalStore, list[str]]:
    """A store whose live channel has pointed at three bundles."""
    first = live(store).name
    versions = [first, *(derive(store, store.bundle(first)) for _ in range(2))]
    for version in versions[1:]:
        store.point("live", version)
    return store, versions


def test_a_sound_store_has_no_trouble(store: LocalStore) -> None:
    result = doctor(store, "--json")

    rows = {row["what"]: row for row in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert not any(row["trouble"] for row in rows.values())
    assert rows[f"bundle {live(store).name}"]["found"] == "sound; exact, live points at it"
    assert rows["channel live"]["found"] == f"points at {live(store).name}"


def test_everything_wrong_is_named_then_repaired_and_served(
    three: tuple[LocalStore, list[str]],
) -> None:
    store, (first, second, third) = three
    state = store.root.parent / "state"
    flip(store.bundle(third) / "item_vectors.npy", -1)
    shutil.rmtree(store.bundle(second))
    (store.root / "channels" / "rolled.json").write_text("{")
    rest = store.root / "bundles" / ".staging-dead"
    rest.mkdir()
    os.utime(rest, (time.time() - 120,) * 2)
    journal = open_journal(str(state / "journal.db"))
    journal.append([Entry("item", {"item_id": f"x{n}", "features": {}}) for n in range(400)])
    journal.close()
    flip(state / "journal.db", 4 * PAGE)
    before = tree(store.root.parent)

    troubles = {what: row for what, row in found(store).items() if row["trouble"]}
    dry = doctor(store)

    assert tree(store.root.parent) == before
    assert dry.exit_code == 1
    assert "5 troubles; --repair does what is said of 5 of them" in dry.stderr
    assert set(troubles) == {
        f"bundle {third}",
        "channel live",
        "channel rolled",
        str(rest),
        f"journal {state / 'journal.db'}",
    }
    assert troubles["channel live"]["advice"] == f"point it back at {first}"
    assert "sha256" in troubles[f"bundle {third}"]["found"]
    assert "entries can be read, lost: seq" in troubles[f"journal {state / 'journal.db'}"]["found"]

    repaired = doctor(store, "--repair")

    assert repaired.exit_code == 0, repaired.output
    assert f"channel live: points at {first}" in repaired.stderr
    assert doctor(store).exit_code == 0
    assert (store.root / "bundles" / f".damaged-{third}" / "item_vectors.npy").exists()
    assert list((store.root / "channels").glob("rolled.json.damaged-*"))
    with Server(store.root, state, channels="live") as server:
        assert server.client.get("/v1/bundle").json()["version"] == first
        answers = [server.client.get(f"/v1/items/x{n}").status_code for n in range(400)]
    assert answers.count(404) < 150
    assert answers.count(200) == 400 - answers.count(404)


def test_a_journal_in_use_is_examined_and_not_repaired(store: LocalStore) -> None:
    path = store.root.parent / "state" / "journal.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"open\n"
        sound = found(store)[f"journal {path}"]["found"]
        (path.parent / ".repair").mkdir()
        result = doctor(store, "--repair")
        holder.communicate()

    assert sound == "sound, up to seq 1"
    assert result.exit_code == 1
    assert "journal.db: in use; stop the service" in result.stderr
    assert doctor(store, "--repair").exit_code == 0
    assert found(store)[f"journal {path}"]["found"] == "sound, up to seq 1"


def test_a_journal_behind_its_bundle_is_another_one(store: LocalStore) -> None:
    store.point("live", derive(store, live(store), seq=7))
    path = store.root.parent / "state" / "journal.db"
    open_journal(str(path)).close()

    row = found(store)[f"journal {path}"]

    assert row["trouble"]
    assert row["advice"] == "a bundle includes it up to seq 7: it is another one; see --state"


def test_the_journal_is_that_of_the_services_state(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_STATE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TANDEM_STORE", "another")

    assert f"journal {tmp_path / 'elsewhere' / 'journal.db'}" in found(store)
    given = found(store, "--state", tmp_path / "given")
    assert f"journal {tmp_path / 'given' / 'journal.db'}" in given
    monkeypatch.delenv("TANDEM_STATE")
    assert f"journal {store.root.parent / 'state' / 'journal.db'}" in found(store)


def test_a_setting_out_of_bounds_is_one_line(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_PORT", "abc")

    result = doctor(store)

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: --port (TANDEM_PORT): Input should be a valid integer")
    assert len(result.stderr.splitlines()) == 1


def test_stray_files_and_half_a_bundle_do_not_stop_the_doctor(store: LocalStore) -> None:
    (store.root / "bundles" / "README.txt").write_text("x")
    (store.root / "bundles" / "coming").mkdir()
    stray = store.root / "channels" / "live (copy).json"
    stray.write_text("x")

    rows = found(store, "--repair")

    assert {what for what, row in rows.items() if row["trouble"]} == {"bundle coming"}
    assert stray.read_text() == "x"


def older(path: Path) -> None:
    edit_manifest(path, lambda d: d.update(format=99))


def lost(path: Path) -> None:
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("damage", "what", "advice"),
    [
        (older, "bundle", ""),
        (lost, "channel", "publish to it: no bundle before is sound"),
        (lambda path: flip(path / "golden.json", 9), "bundle", "publish another one"),
    ],
)
def test_what_cannot_be_repaired_is_left_as_it_is(
    published: LocalStore,
    tmp_path: Path,
    damage: Callable[[Path], None],
    what: str,
    advice: str,
) -> None:
    shutil.copytree(published.root, tmp_path / "store")
    store = LocalStore(tmp_path / "store")
    damage(live(store))
    before = tree(tmp_path)

    result = doctor(store, "--repair")

    assert result.exit_code == 1
    assert tree(tmp_path) == before
    rows = [row for name, row in found(store).items() if name.startswith(what)]
    assert advice in [row["advice"] for row in rows if row["trouble"]]


def test_old_bundles_are_collected_where_it_is_said(three: tuple[LocalStore, list[str]]) -> None:
    store, (first, second, third) = three
    fourth = derive(store, store.bundle(third))
    store.point("live", fourth)
    for name in ("exact", "annoy", "faiss_hnsw", "rolled"):
        store.point(name, fourth)
        store.point(name, third)
    for version in store.versions():
        os.utime(store.bundle(version), (time.time() - 7200,) * 2)
    before = store.versions()

    plan = found(store, "--collect", 1)
    assert doctor(store, "--repair").exit_code == 0
    assert store.versions() == before
    done = doctor(store, "--collect", 1, "--repair")

    going = {what for what, row in plan.items() if row["advice"] == "remove it"}
    assert going == {f"bundle {version}" for version in set(before) - {third, fourth}}
    assert done.exit_code == 0
    assert store.versions() == [third, fourth]
    assert {first, second}.isdisjoint(store.versions())


@pytest.mark.parametrize("options", [("--repair",), ("--collect", "2"), ("--state", "x")])
def test_without_a_store_there_is_nothing_to_repair(options: tuple[str, ...]) -> None:
    result = CliRunner().invoke(tandem.main, ["doctor", *options])

    assert result.exit_code == 2
    assert "need --store" in result.output
