"""Swaps under load: no request fails, the answers stay fast, and nothing is left behind."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest

from benchmarks.load import Answered, Load
from tests.service.reliability.conftest import Floor
from tests.service.reliability.scale import LENGTH, found, lasting
from tests.service.server import Server, wait_until

WORKERS, CONNECTIONS = 2, 8
SWAPS = lasting(6, 100, 1000)
SATURATION_SECONDS = 5.0
PAUSE = lasting(0, 1, 1) / 2
WARM_UP = 4
"""Swaps after which the memory is taken as that of a service in use."""
SETTLED = " serves after "
SETTLING = lasting(4, 50, 50)
"""Swaps after which a worker has all that it will ever have."""
ROUNDS = 1 + lasting(8, 200, 1000)
LEAK = 100 * 1024
"""Bytes a swap. What a snapshot, an overlay or a session takes is more."""
USERS = [f"u{n}" for n in range(200)]


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("share", [0.5, 0.8][: lasting(1, 2, 2)])
def test_swaps_under_load_cost_no_request_and_leave_nothing(
    floor: Floor, tmp_path: Path, share: float
) -> None:
    options = {"workers": WORKERS, "channels": "live"}
    with Server(floor.store.root, tmp_path / "state", **options) as server:
        rate = share * capacity(server) if LENGTH else 50.0
        with Load(server.port, USERS, CONNECTIONS, rate) as load:
            swaps = [swap(server, floor, n, PAUSE) for n in range(WARM_UP)]
            before = [held(pid) for pid in server.workers()]
            swaps += [swap(server, floor, n, PAUSE) for n in range(SWAPS)]
            wait_until(
                lambda: all(
                    open_files(pid) <= files
                    for pid, (_, files) in zip(server.workers(), before, strict=True)
                ),
                "files to be closed that were not open before",
            )
            after = [held(pid) for pid in server.workers()]
        mapped = [bundles_mapped_by(pid) for pid in server.workers()]

    answers = load.answers
    assert [a for a in answers if a.status != 200] == []
    assert {answer.bundle for answer in answers} == set(floor.versions)
    assert mapped == [{floor.versions[SWAPS % 2]}] * WORKERS

    inside = [a for a in answers if any(start <= a.due < end for start, end in swaps)]
    ratio = p99(inside) / p99(sorted(set(answers) - set(inside)))
    grown = max(a / b for (a, _), (b, _) in zip(after, before, strict=True)) - 1
    what = f"{SWAPS} swaps at {rate:,.0f} requests/s ({share:.0%})"
    found(f"{what}: not 2xx", "0", f"0 of {len(answers):,}")
    found(
        f"{what}: p99 in a swap", "<= 2 times the quiet one", f"{ratio:.1f} times, {shown(inside)}"
    )
    found(f"{what}: memory afterwards", "within 5 %", f"{grown:+.1%}")
    found(f"{what}: open files, bundles mapped", "as before", "as before")


class Held(NamedTuple):
    """What a process has."""

    files: int
    threads: int
    mapped: int
    """Regions of its memory that are files."""
    private: int
    """Bytes of memory that are no file's."""

    @classmethod
    def by(cls, pid: int) -> "Held":
        process = Path(f"/proc/{pid}")
        (kilobytes,) = re.findall(
            r"^Anonymous: +(\d+) kB", (process / "smaps_rollup").read_text(), re.M
        )
        return cls(
            files=open_files(pid),
            threads=len(list((process / "task").iterdir())),
            mapped=len(re.findall(r"/bundles/", (process / "maps").read_text())),
            private=int(kilobytes) * 1024,
        )


@pytest.mark.timeout(4 * 3600)
def test_swaps_and_writes_leave_no_file_thread_or_memory_behind(
    floor: Floor, tmp_path: Path
) -> None:
    options = {"workers": WORKERS, "channels": "live", "recheck_share": 1}
    with (
        Server(floor.store.root, tmp_path / "state", **options) as server,
        server.client_of_each_worker() as workers,
    ):
        clients = list(workers.values())
        for n in range(SETTLING):
            one_more(server, floor, clients, n)
        held = [one_more(server, floor, clients, n) for n in range(ROUNDS)]

        wait_until(
            lambda: all(map(as_before, held[0], map(Held.by, server.workers()))),
            "workers that have no more than before",
        )

    private = np.array([[of.private for of in each] for each in held])
    slopes = np.polyfit(range(ROUNDS), private, 1)[0]
    # A few swaps tell nothing of memory: its blocks still find their places.
    assert LENGTH == 0 or slopes.max() < LEAK
    what = f"{ROUNDS - 1} swaps with writes between"
    shown = " and ".join(f"{slope / 1024:+.1f} KiB a swap" for slope in slopes)
    found(f"{what}: files, threads, mappings", "as before", "as before")
    found(f"{what}: private memory", "flat", shown)


def as_before(before: Held, now: Held) -> bool:
    """A channel or a journal may just be open for a moment. The two bundles take turns: the first
    and the last of ROUNDS swaps are to the same."""
    return (
        now.files <= before.files and now.threads <= before.threads and now.mapped <= before.mapped
    )


def one_more(server: Server, floor: Floor, clients: Sequence[httpx.Client], n: int) -> list[Held]:
    """What the workers have after a swap, some writes that each worker knows of, and recalls."""
    swap(server, floor, n)
    written = {"item_id": f"posted-{n % 10}", "features": {"title": f"number {n}"}}
    assert clients[0].post("/v1/items", json=written).status_code == 201
    event = {"user_id": f"visitor-{n % 10}", "item_id": "i1"}
    assert clients[0].post("/v1/events", json=event).status_code == 201
    for client in clients:
        for user in USERS[:20]:
            assert client.get(f"/v1/recommendations/{user}").status_code == 200
    return [Held.by(pid) for pid in server.workers()]


def capacity(server: Server) -> float:
    """Requests a second that this generator gets through, which shares the cores."""
    with Load(server.port, USERS, CONNECTIONS, None) as load:
        time.sleep(SATURATION_SECONDS)
    return len(load.answers) / SATURATION_SECONDS


def swap(server: Server, floor: Floor, n: int, pause: float = 0.0) -> tuple[float, float]:
    """From the move of the channel until the last worker serves the other bundle; then a pause."""
    settled = server.log.count(SETTLED) + WORKERS
    started = time.monotonic()
    floor.store.point("live", floor.versions[1 - n % 2])
    wait_until(lambda: server.log.count(SETTLED) == settled, "the swap in every worker")
    ended = time.monotonic()
    time.sleep(pause)
    return started, ended


def held(pid: int) -> tuple[float, int]:
    """The memory of a process in bytes, what it shares counted by its share, and its open files."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (kilobytes,) = re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(kilobytes) * 1024, open_files(pid)


def open_files(pid: int) -> int:
    """Without sockets: those of clients come and go."""
    count = 0
    for file in list(Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # closed since it was listed
            count += not os.readlink(file).startswith("socket:")
    return count


def bundles_mapped_by(pid: int) -> set[str]:
    return set(re.findall(r"/bundles/([^/]+)/", Path(f"/proc/{pid}/maps").read_text()))


def p99(answers: Sequence[Answered]) -> float:
    return float(np.percentile([answer.seconds for answer in answers], 99))


def shown(answers: Sequence[Answered]) -> str:
    return f"{1000 * p99(answers):.0f} ms"
