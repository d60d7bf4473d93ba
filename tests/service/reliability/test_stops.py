"""Stop and roll: a service that is told to stop finishes what it has, and clients that keep
connections notice nothing when another service takes its place."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import found, lasting
from tests.service.server import Server, wait_until

ROLLS = lasting(1, 20, 200)
CLIENTS, WORKERS, PAUSE = 4, 2, 0.002
DRAIN_SECONDS, FINISH_SECONDS = 0.5, 10.0


class Balancer:
    """Clients that keep their connections, and open new ones to the service that is in front."""

    def __init__(self, front: Server) -> None:
        self.front = front
        self.answered: list[int] = []
        self.failed: list[str] = []
        self._ended = threading.Event()

    @contextmanager
    def traffic(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def wait_for(self, answers: int) -> None:
        wait_until(lambda: len(self.answered) >= answers, f"{answers} answers")

    def _run(self) -> None:
        while not self._ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.front.port, timeout=30)
            while self._ask(connection) and not self._ended.wait(PAUSE):
                pass
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        """Whether the connection goes on."""
        try:
            connection.request("GET", "/v1/recommendations/u1?k=10")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(repr(error))
            return False
        self.answered.append(answer.status)
        return answer.getheader("connection") != "close"


@pytest.mark.timeout(4 * 3600)
def test_a_rolling_restart_fails_no_request(floor: Floor, tmp_path: Path) -> None:
    options = {"workers": WORKERS, "channels": "live", "drain_seconds": DRAIN_SECONDS}
    servers = [Server(floor.store.root, tmp_path / "state", **options) for _ in range(2)]
    seconds = []
    with servers[0], servers[1]:
        balancer = Balancer(servers[0])
        with balancer.traffic():
            for roll in range(ROLLS):
                old, new = servers[roll % 2], servers[1 - roll % 2]
                wanted = len(balancer.answered) + 100
                balancer.front = new
                started = time.monotonic()
                assert old.stop() == 0
                seconds.append(time.monotonic() - started)
                balancer.wait_for(wanted)
                old.restart()

    assert balancer.failed == []
    assert set(balancer.answered) == {200}
    what = f"rolling restart: {ROLLS} rolls, {CLIENTS} keep-alive clients"
    found(f"{what}: failed requests", "0", f"0 of {len(balancer.answered):,}")
    limit = DRAIN_SECONDS + FINISH_SECONDS
    found(f"{what}: seconds to stop", f"<= {limit:g}", f"at most {max(seconds):.1f}")


def test_a_service_that_drains_says_so_and_answers_still(floor: Floor, tmp_path: Path) -> None:
    options = {"channels": "live", "drain_seconds": 2}
    with Server(floor.store.root, tmp_path / "state", **options) as server:
        with server.new_client() as client:
            assert "connection" not in client.get("/healthz").headers
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            wait_until(lambda: client.get("/readyz").status_code == 503, "not ready")
            wait_until(lambda: "connection" in client.get("/healthz").headers, "a polite end")
            answer = client.get("/v1/recommendations/u1")
            late = client.get("/readyz")
        stopping.join()

    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"
    assert "being stopped" in late.json()["error"]["message"]
