"""A journal of which pages are damaged, under a service: answers go on, writes say why they cannot,
a start says what to do, and a repair costs what was on the pages alone."""

import re
import subprocess
import sys
from pathlib import Path

from tests.places import ROOT
from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import found
from tests.service.server import Server

PAGE, ITEMS, EVERY = 4096, 400, 8


def names(start: int, stop: int) -> list[str]:
    return [f"item-{n}" for n in range(start, stop)]


def post(server: Server, ids: list[str]) -> int:
    items = [{"item_id": name, "features": {"title": name * 20}} for name in ids]
    return server.client.post("/v1/items", json={"items": items}).status_code


def damage(journal: Path) -> int:
    """Every so many pages of the file, the last one among them, which the next write changes."""
    content = bytearray(journal.read_bytes())
    pages = range(len(content) - PAGE, 2 * PAGE, -EVERY * PAGE)
    for at in pages:
        content[at : at + 16] = bytes(16)
    # In place: whoever has it open goes on with the same file.
    with journal.open("r+b") as file:
        file.write(content)
    return len(pages)


def tandem(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tandem", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_damaged_journal_stops_writes_alone_and_is_repaired(floor: Floor, tmp_path: Path) -> None:
    state = tmp_path / "state"
    journal = state / "journal.db"
    with Server(floor.store.root, state, channels="live") as server:
        assert post(server, names(0, ITEMS)) == 201
    with Server(floor.store.root, state, channels="live") as server:
        pages = damage(journal)
        written = server.client.post("/v1/items", json={"item_id": "late"})
        reads = [server.client.get(f"/v1/recommendations/u{n}").status_code for n in range(100)]
        known = [server.client.get(f"/v1/items/{n}").status_code for n in names(0, ITEMS)]
        ready = server.client.get("/readyz").status_code
        server.stop()
        assert server.exit_code_of_start() == 1
        said = server.log.splitlines()[-1]

    plan = tandem("doctor", "--store", floor.store.root, "--state", state)
    repaired = tandem("doctor", "--store", floor.store.root, "--state", state, "--repair")

    assert written.status_code == 503
    assert written.json()["error"]["code"] == "journal_damaged"
    assert "database disk image is malformed" in written.json()["error"]["message"]
    assert set(reads) == set(known) == {ready} == {200}
    assert f"journal {journal}: damaged" in said
    assert f"'tandem doctor --store STORE --state {state}'" in said
    assert plan.returncode == 1
    assert repaired.returncode == 0, repaired.stderr
    lost = seqs(repaired.stderr)
    with Server(floor.store.root, state, channels="live") as server:
        there = [server.client.get(f"/v1/items/{n}").is_success for n in names(0, ITEMS)]
        assert server.client.get("/v1/bundle").json()["seq"] == ITEMS
        assert post(server, ["new"]) == 201
    assert [seq for seq, known in enumerate(there, 1) if not known] == lost
    assert pages <= len(lost) < ITEMS / 2
    found("a damaged journal: reads", "all", f"all of {len(reads)}")
    found(
        f"the same: {pages} damaged pages, repaired",
        "what was on them",
        f"{len(lost)} of {ITEMS} entries lost, by name",
    )


def seqs(text: str) -> list[int]:
    """Those that are said to be lost."""
    (spans,) = re.findall(r"lost: seq ([\d, -]+);", text)
    ends = [span.split("-") for span in spans.split(", ")]
    return [seq for span in ends for seq in range(int(span[0]), int(span[-1]) + 1)]
