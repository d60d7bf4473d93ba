"""Servers side by side: each alone on its core while it is asked, by turns, so that what else the
machine does meets all of them."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.wrk import CONNECTIONS, Saturated, saturate
from contract.errors import TandemError
from offline.local import free_port

CORES = sorted(os.sched_getaffinity(0))
SERVED, LOADING = CORES[-1], CORES[0]
"""The core of the server under load, and that of the generator."""
ROUNDS, SECONDS = 4, 2
START_SECONDS = 120.0


class Contender(NamedTuple):
    url: str
    paths: Path
    """One a line: what it is asked."""
    events: Path | None = None
    """Bodies of events, of which every tenth request posts one."""
    cores: Sequence[int] = (LOADING,)
    """Of the generator."""
    key: str = ""
    """Of reading, where one is needed."""
    connections: int = CONNECTIONS


class Ratio(NamedTuple):
    """Of two contenders, turn for turn."""

    median: float
    least: float
    most: float


class Rates(NamedTuple):
    """Answers a second of each contender, in each round."""

    rounds: Mapping[str, list[Saturated]]

    def rate(self, name: str) -> float:
        return median(turn.rate for turn in self.rounds[name])

    def spread(self, name: str) -> tuple[float, float]:
        rates = [turn.rate for turn in self.rounds[name]]
        return min(rates), max(rates)

    def over(self, name: str, other: str) -> Ratio:
        pairs = zip(self.rounds[name], self.rounds[other], strict=True)
        ratios = [turn.rate / against.rate for turn, against in pairs]
        return Ratio(median(ratios), min(ratios), max(ratios))

    @property
    def failed(self) -> int:
        return sum(turn.failed for turns in self.rounds.values() for turn in turns)


def contest(contenders: Mapping[str, Contender], seconds: int = SECONDS) -> Rates:
    """A first round warms them and does not count."""
    rounds: dict[str, list[Saturated]] = {name: [] for name in contenders}
    for number in range(1 + ROUNDS):
        for name, one in contenders.items():
            turn = saturate(
                one.url, one.paths, seconds, one.cores, one.events, one.key, one.connections
            )
            if number:
                rounds[name].append(turn)
    return Rates(rounds)


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """What is started inside stays on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def uvicorn(app: str, path: str, **variables: str) -> Iterator[str]:
    """An ASGI application, given by its name, on the core of servers, once it answers a GET of the
    path; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    command += ["--factory"] if app.endswith("create_app") else []
    with pinned(SERVED):
        process = subprocess.Popen(command, env=os.environ | variables)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url + path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TandemError(f"{app} did not start; run it by hand: {' '.join(command)}")
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False  # not listening yet
