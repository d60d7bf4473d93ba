"""The console, in a real browser."""

import subprocess
from pathlib import Path

import pytest

from service.snapshot import Snapshot
from tests.places import program
from tests.service.server import Server

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--virtual-time-budget=5000 --dump-dom"
)


@pytest.fixture(scope="session")
def chromium() -> str:
    return program("chromium", "chromium")


def test_the_console_shows_the_bundle_and_recommendations_by_title(
    chromium: str, server: Server, snapshot: Snapshot, tmp_path: Path
) -> None:
    popular = int(snapshot.popular[0])
    wanted = server.client.get(f"/v1/items/{snapshot.bundle.item_ids[popular]}").json()

    page = subprocess.run(
        [chromium, *FLAGS.split(), f"--user-data-dir={tmp_path}", f"{server.url}/console"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout

    version = server.client.get("/v1/bundle").json()["version"]
    assert f"<b>{version}</b>" in page
    assert f">{wanted['features']['title']}</a>" in page
    assert "source fallback" in page
    assert "200  GET /v1/recommendations/{user_id}" in page
