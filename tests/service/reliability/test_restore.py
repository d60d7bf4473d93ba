"""Backup and restore, by the commands of docs/operations.md, while the service runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.documents import text
from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import found
from tests.service.server import Server

BEFORE, AFTER = 200, 10


def test_a_copy_of_a_running_service_restores_all_that_was_acknowledged_before_it(
    floor: Floor, tmp_path: Path
) -> None:
    state, backup = tmp_path / "state", tmp_path / "backup"
    backup.mkdir()
    with Server(floor.store.root, state, channels="live") as server:
        names = [post(server, n) for n in range(BEFORE)]
        deleted = names[::10]
        for name in deleted:
            assert server.client.delete(f"/v1/items/{name}").is_success
        copy_journal(state / "journal.db", backup / "journal.db")
        for part in ("bundles", "channels"):
            shutil.copytree(floor.store.root / part, backup / "store" / part)
        late = [post(server, n) for n in range(BEFORE, BEFORE + AFTER)]

    # As after the loss of the machine: nothing is left but the copies.
    shutil.rmtree(state)
    shutil.rmtree(floor.store.root)
    state.mkdir()
    shutil.copy(backup / "journal.db", state)
    with Server(backup / "store", state, channels="live") as server:
        known = [n for n in names + late if server.client.get(f"/v1/items/{n}").is_success]
        assert server.client.get("/v1/bundle").json()["version"] == floor.versions[0]
        assert post(server, BEFORE) == late[0]
        (last,) = server.journal()[-1:]

    assert known == [name for name in names if name not in deleted]
    assert last.seq == BEFORE + len(deleted) + 1
    found("restore from the documented copies", "all written before them", f"all of {BEFORE}")


def post(server: Server, n: int) -> str:
    name = f"item-{n}"
    assert server.client.post("/v1/items", json={"item_id": name}).status_code == 201
    return name


def copy_journal(source: Path, destination: Path) -> None:
    """By the line of the chapter, with these paths."""
    (line,) = re.findall(r"^python -c (\"import sqlite3.*\")$", text("docs/operations.md"), re.M)
    code = line.strip('"').replace("/srv/tandem/state/journal.db", str(source))
    code = code.replace("journal-copy.db", str(destination))
    assert str(source) in code
    assert str(destination) in code
    subprocess.run([sys.executable, "-c", code], check=True)
