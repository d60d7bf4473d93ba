"""A real Redis server for tests, in a process of its own, as an operator starts it."""

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.places import program
from tests.service.server import free_port, wait_until

DURABLE = {"appendonly": "yes", "appendfsync": "always"}


class RedisServer:
    def __init__(self, folder: Path, **options: str) -> None:
        """`options` as of its configuration, with underscores."""
        self.port = free_port()
        self._folder, self._options = folder, {"save": "", "dir": str(folder)} | options
        self._process: subprocess.Popen[bytes] | None = None

    def uri(self, name: str, more: str = "") -> str:
        """Of the journal of this name."""
        return f"redis://127.0.0.1:{self.port}/0?name={name}{more}"

    def client(self) -> Any:
        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Returns when it answers."""
        given = ((f"--{name.replace('_', '-')}", value) for name, value in self._options.items())
        pairs = [part for pair in given for part in pair]
        command = [program("redis-server", "redis-server"), "--port", str(self.port), *pairs]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers, f"Redis at port {self.port}; see {self._folder / 'redis.log'}")

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "redis.log").read_text()
        with closing(self.client()) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def kill(self) -> None:
        """As when its machine is lost."""
        assert self._process
        self._process.kill()
        self._process.wait()


@contextmanager
def redis_server(folder: Path, **options: str) -> Iterator[RedisServer]:
    """Running, and writing each commit to disk unless `options` say otherwise."""
    server = RedisServer(folder, **DURABLE | options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
