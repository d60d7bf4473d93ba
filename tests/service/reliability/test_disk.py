"""The disk, full or read-only: reads go on, writes say why they cannot, and all is well again when
it is."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.errors import DiskError
from tests.conftest import add_copy
from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import found
from tests.service.server import ADMIN, Server

MEBIBYTES = 64
WORKERS = 2


def privileged(*command: str) -> None:
    prefix = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    subprocess.run([*prefix, *command], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, small enough to be filled."""
    place = tmp_path / "disk"
    place.mkdir()
    size = f"size={MEBIBYTES}m,mode=777"
    privileged("mount", "-t", "tmpfs", "-o", size, "tandem-tests", str(place))
    yield place
    privileged("umount", "--lazy", str(place))


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Without a byte left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    privileged("mount", "-o", "remount,ro", str(disk))
    try:
        yield
    finally:
        privileged("mount", "-o", "remount,rw", str(disk))


def post(client: httpx.Client, name: str) -> httpx.Response:
    return client.post("/v1/items", json={"item_id": name, "features": {"title": name * 50}})


def message(answer: httpx.Response) -> str:
    text: str = answer.json()["error"]["message"]
    return text


def test_a_full_disk_stops_writes_alone_and_until_there_is_room(floor: Floor, disk: Path) -> None:
    acknowledged: list[str] = []
    refused: list[str] = []
    with Server(floor.store.root, disk / "state", workers=WORKERS) as server:
        pids = server.workers()
        assert post(server.client, "before").status_code == 201
        with filled(disk), server.client_of_each_worker() as workers:
            for n in range(1000):
                answer = post(server.client, f"item-{n}")
                (acknowledged if answer.is_success else refused).append(f"item-{n}")
                if len(refused) == 20:
                    break
            assert answer.status_code == 503
            assert "full" in message(answer)
            for client in workers.values():
                for user in range(100):
                    assert client.get(f"/v1/recommendations/u{user}").status_code == 200
                assert client.get("/v1/items/before").status_code == 200
                assert client.get("/nothing").status_code == 404
                assert client.get("/metrics").status_code == 200
                assert client.get("/readyz").status_code == 200
        assert post(server.client, "after").status_code == 201
        assert server.workers() == pids
        written = [record.body["item_id"] for record in server.journal()]
        server.stop()
        server.restart()
        known = [name for name in written if server.client.get(f"/v1/items/{name}").is_success]

    assert written == ["before", *acknowledged, "after"]
    assert known == written
    found("full disk: reads", "all", f"all of {100 * WORKERS}")
    found("full disk: writes", "503 with the reason, then 201", f"{len(refused)} refused, then 201")


@pytest.mark.parametrize(
    ("trouble", "reason"), [(filled, "No space left"), (read_only, "Read-only")]
)
def test_a_store_that_cannot_be_written_refuses_to_move_and_serves_on(
    floor: Floor, disk: Path, tmp_path: Path, trouble: Any, reason: str
) -> None:
    # The bundles stay where they are; the channels, which move, are on the disk.
    channels = floor.store.root / "channels"
    first, second = floor.versions
    floor.store.point("live", second)
    shutil.move(channels, disk / "channels")
    channels.symlink_to(disk / "channels")
    options = {"workers": WORKERS, "channels": "live"}
    with Server(floor.store.root, tmp_path / "state", **options) as server:
        with trouble(disk):
            answer = server.client.post("/v1/bundle/rollback", headers=ADMIN)
            assert answer.status_code == 503
            assert reason in message(answer)
            with pytest.raises(DiskError, match=reason):
                floor.store.point("live", first)
            assert server.client.get("/v1/recommendations/u1").json()["bundle"] == second
        assert list((disk / "channels").glob(".staging-*")) == []
        assert server.client.post("/v1/bundle/rollback", headers=ADMIN).status_code == 200
        assert server.client.get("/v1/recommendations/u1").json()["bundle"] == first


def test_a_publish_on_a_full_disk_leaves_nothing(floor: Floor, disk: Path) -> None:
    bundles = floor.store.root / "bundles"
    before = floor.store.versions()
    shutil.move(bundles, disk / "bundles")
    bundles.symlink_to(disk / "bundles")

    with filled(disk), pytest.raises(DiskError, match="No space left"):
        add_copy(floor.store)

    assert sorted(path.name for path in (disk / "bundles").iterdir()) == before
    assert add_copy(floor.store) in floor.store.versions()
