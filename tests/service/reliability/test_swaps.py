"""Swaps under load: no request fails, the answers stay fast, and nothing is left behind."""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

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
            swaps = [swap(server, floor, n) for n in range(WARM_UP)]
            before = [held(pid) for pid in server.workers()]
            swaps += [swap(server, floor, n) for n in range(SWAPS)]
            after = [held(pid) for pid in server.workers()]
        mapped = [bundles_mapped_by(pid) for pid in server.workers()]

    answers = load.answers
    assert [a for a in answers if a.status != 200] == []
    assert {answer.bundle for answer in answers} == set(floor.versions)
    assert mapped == [{floor.versions[SWAPS % 2]}] * WORKERS
    assert [files for _, files in after] == [files for _, files in before]

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


def capacity(server: Server) -> float:
    """Requests a second that this generator gets through, which shares the cores."""
    with Load(server.port, USERS, CONNECTIONS, None) as load:
        time.sleep(SATURATION_SECONDS)
    return len(load.answers) / SATURATION_SECONDS


def swap(server: Server, floor: Floor, n: int) -> tuple[float, float]:
    """From the move of the channel until the last worker serves the other bundle."""
    settled = server.log.count(SETTLED) + WORKERS
    started = time.monotonic()
    floor.store.point("live", floor.versions[1 - n % 2])
    wait_until(lambda: server.log.count(SETTLED) == settled, "the swap in every worker")
    ended = time.monotonic()
    time.sleep(PAUSE)
    return started, ended


def held(pid: int) -> tuple[float, int]:
    """The memory of a process in bytes, what it shares counted by its share, and its open files."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (kilobytes,) = re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(kilobytes) * 1024, len(os.listdir(f"/proc/{pid}/fd"))


def bundles_mapped_by(pid: int) -> set[str]:
    return set(re.findall(r"/bundles/([^/]+)/", Path(f"/proc/{pid}/maps").read_text()))


def p99(answers: Sequence[Answered]) -> float:
    return float(np.percentile([answer.seconds for answer in answers], 99))


def shown(answers: Sequence[Answered]) -> str:
    return f"{1000 * p99(answers):.0f} ms"
