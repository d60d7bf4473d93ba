"""Saturation by `wrk`, which costs a tenth of what it measures: a generator in Python is the slower
side against anything but a slow service."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from contract.errors import ExtraMissing, TandemError

SCRIPT = Path(__file__).with_suffix(".lua")
CONNECTIONS = 16
"""As many as a worker answers at a time."""
KEY = "WRK_KEY"
"""The variable that the script reads."""


class Saturated(NamedTuple):
    rate: float
    """Answers a second."""
    failed: int
    """Answers other than 2xx or 3xx, and those that did not come."""


def saturate(
    url: str,
    paths: Path,
    seconds: int,
    cores: Sequence[int],
    events: Path | None = None,
    key: str = "",
    connections: int = CONNECTIONS,
) -> Saturated:
    """As many requests as are answered, from these cores. `paths` is a file of one path a line,
    `events` one of bodies of events, which every tenth request then posts; `key` goes with each."""
    if shutil.which("wrk") is None:
        raise ExtraMissing("bench serve needs wrk, a load generator: apt-get install wrk")
    command = [
        "taskset",
        "-c",
        ",".join(map(str, cores)),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
    ]
    command += ["-s", str(SCRIPT), url, "--", str(paths)]
    command += [str(events)] if events else []
    # Not an argument: those are there for everyone on the machine to read.
    environment = os.environ | {KEY: key}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return parse(done.stdout)


def parse(output: str) -> Saturated:
    """Raises TandemError for what is no report of wrk."""
    rate = re.search(r"^Requests/sec: +([\d.]+)$", output, re.MULTILINE)
    if rate is None:
        raise TandemError(f"wrk reported no rate: {output[:200]!r}; run it by hand")
    bad = re.findall(r"Non-2xx or 3xx responses: (\d+)", output)
    errors = re.findall(r"Socket errors: (.*)", output)
    lost = sum(int(n) for line in errors for n in re.findall(r"\d+", line))
    return Saturated(float(rate.group(1)), sum(map(int, bad)) + lost)
