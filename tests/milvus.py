"""A real Milvus server for tests: milvus-lite in a process of its own, as an operator starts it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.index._milvus import SERVER
from tests.service.server import free_port, wait_until


class MilvusServer:
    def __init__(self, folder: Path) -> None:
        self.database = folder / "milvus.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = folder / "milvus.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        program, *arguments = SERVER.format(self.database).split()
        arguments[arguments.index("--port") + 1] = str(self.port)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).parent / program, *arguments], stdout=log, stderr=log
            )
        wait_until(self._answers, f"Milvus at {self.uri}; see {self._log}")

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """As when its machine is lost."""
        assert self._process
        self._process.kill()
        self._process.wait()


@contextmanager
def milvus_server(folder: Path) -> Iterator[MilvusServer]:
    """Running, and where Tandem looks for it: by TANDEM_MILVUS_URI, also in processes to come."""
    server = MilvusServer(folder)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_MILVUS_URI", server.uri)
        try:
            yield server
        finally:
            server.kill()
