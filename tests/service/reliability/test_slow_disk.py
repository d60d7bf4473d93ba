"""A disk that takes seconds for a sync: writes wait for it, and nothing else does."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.places import program
from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import found, lasting
from tests.service.server import Server, wait_until

SECONDS = lasting(1, 5, 10)
READS = lasting(30, 200, 1000)


@contextmanager
def slow_sync(pid: int) -> Iterator[None]:
    """Every fdatasync of this process begins so many seconds late."""
    given = f"-f -qq -p {pid} -o /dev/null -e trace=fdatasync -e inject=fdatasync:delay_enter="
    command = [program("strace", "strace"), *f"{given}{SECONDS * 1_000_000}".split()]
    strace = subprocess.Popen(command)
    wait_until(lambda: _traced(pid), "strace")
    try:
        yield
    finally:
        strace.terminate()
        strace.wait()


def _traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0" not in status


def test_a_slow_sync_delays_the_write_and_nothing_else(floor: Floor, tmp_path: Path) -> None:
    with (
        Server(floor.store.root, tmp_path / "state", channels="live") as server,
        server.new_client() as writer,
        ThreadPoolExecutor() as pool,
        slow_sync(server.workers()[0]),
    ):
        started = time.monotonic()
        write = pool.submit(writer.post, "/v1/items", json={"item_id": "slow"})
        seconds = []
        for n in range(READS):
            asked = time.monotonic()
            assert server.client.get(f"/v1/recommendations/u{n % 100}").status_code == 200
            seconds.append(time.monotonic() - asked)
        ready = server.client.get("/readyz").status_code
        early = server.client.get("/v1/items/slow").status_code
        waiting = not write.done()
        answer = write.result()
        waited = time.monotonic() - started
        late = server.client.get("/v1/items/slow").status_code

    assert waiting
    assert (ready, early, late) == (200, 404, 200)
    assert answer.status_code == 201
    assert waited >= SECONDS
    slowest = f"p99 {1000 * np.percentile(seconds, 99):.1f} ms"
    found(f"a sync of {SECONDS} s: reads meanwhile", "as ever", slowest)
    found("the same: acknowledged", "after the sync", f"after {waited:.1f} s")
