from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.journal.sqlite import SqliteJournal
from tests.redis import RedisServer, redis_server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    with closing(SqliteJournal(path)) as journal:
        yield journal


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """That no test changes or stops."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server
