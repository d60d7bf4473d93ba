"""The supervisor and its workers: how they stop, die and are replaced."""

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contract.store import LocalStore
from tests.service.server import Server, wait_until

REPLACED = "starting another"
CONNECTIONS = 40


def kill_a_worker(server: Server) -> None:
    """Returns when the supervisor has noticed."""
    noticed = server.log.count(REPLACED)
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_until(lambda: server.log.count(REPLACED) > noticed, "the supervisor to notice")


def test_a_stopped_service_ends_without_an_error(shelf: LocalStore, tmp_path: Path) -> None:
    with Server(shelf.root, tmp_path, channels="exact", workers=2) as server:
        assert server.stop() == 0


def test_a_service_stops_while_a_worker_is_being_replaced(
    shelf: LocalStore, tmp_path: Path
) -> None:
    with Server(shelf.root, tmp_path, channels="exact") as server:
        kill_a_worker(server)
        wait_until(server.workers, "the new worker's process")
        # The second in a row is replaced after a pause, and the stop comes in that pause.
        kill_a_worker(server)

        assert server.stop() == 0


def test_workers_end_with_their_supervisor_and_another_takes_its_place(
    shelf: LocalStore, tmp_path: Path
) -> None:
    with Server(shelf.root, tmp_path, channels="exact", workers=2) as server:
        workers = server.workers()
        assert len(workers) == 2

        server.kill_supervisor()
        server.restart()

        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "an end")


def test_connections_wait_for_the_worker_that_is_being_replaced(
    shelf: LocalStore, tmp_path: Path
) -> None:
    def ask(server: Server) -> tuple[int, str]:
        with server.new_client() as client:
            answer = client.get("/readyz")
            return answer.status_code, answer.headers["x-tandem-worker"]

    with Server(shelf.root, tmp_path, channels="exact", workers=2) as server:
        kill_a_worker(server)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = Counter(pool.map(ask, [server] * CONNECTIONS))

    assert answers.keys() == {(200, "0"), (200, "1")}
    assert answers.total() == CONNECTIONS
