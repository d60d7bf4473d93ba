"""How long the tests of this directory run, and the table of what they measured.

TANDEM_RELIABILITY is `check` (seconds, the default), `short` (minutes, `make reliability`) or
`long` (hours, `make soak`); TANDEM_SEED repeats a run.
"""

import os
import secrets
from typing import NamedTuple

LENGTHS = ("check", "short", "long")
LENGTH = LENGTHS.index(os.environ.get("TANDEM_RELIABILITY", "check"))
SEED = int(os.environ.get("TANDEM_SEED", secrets.randbits(32)))


def lasting(check: int, short: int, long: int) -> int:
    """How much of something this run is to have."""
    return (check, short, long)[LENGTH]


class Finding(NamedTuple):
    test: str
    wanted: str
    measured: str


FINDINGS: list[Finding] = []


def found(test: str, wanted: str, measured: str) -> None:
    """A row of the table. What must hold on any machine is asserted besides; what depends on the
    machine stands in the table alone."""
    FINDINGS.append(Finding(test, wanted, measured))
