"""The floor that the tests stand on, and the table that they end with."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.world import world
from contract.store import LocalStore
from tests.conftest import live
from tests.service.reliability.scale import FINDINGS, LENGTH, SEED

ITEMS = 5_000


class Floor(NamedTuple):
    """A store of two bundles of the same vectors and different backends, the first one live."""

    store: LocalStore
    versions: tuple[str, str]


@pytest.fixture(scope="session")
def ground(
    shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Small in the default run, 5,000 items in the longer ones. Not to be changed."""
    if LENGTH == 0:
        channel = shelf.channel("faiss_hnsw")
        assert channel
        yield shelf.root, (live(shelf).name, channel.version)
        return
    with world(ITEMS) as made:
        versions = made.publish("exact"), made.publish("faiss_hnsw")
        made.store.point("live", versions[0])
        yield made.store.root, versions


@pytest.fixture
def floor(ground: tuple[Path, tuple[str, str]], tmp_path: Path) -> Floor:
    """A copy, for a test to change."""
    root, versions = ground
    shutil.copytree(root, tmp_path / "store")
    return Floor(LocalStore(tmp_path / "store"), versions)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not FINDINGS:
        return
    rows = [("test", "wanted", "measured", "seed"), *((*one, str(SEED)) for one in FINDINGS)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    terminalreporter.section("reliability")
    for row in rows:
        terminalreporter.write_line("  ".join(map(str.ljust, row, widths)).rstrip())
