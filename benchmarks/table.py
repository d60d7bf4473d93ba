"""What a benchmark reports: rows of what, measured, bar, and whether it holds."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    what: str
    measured: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    stretch: float | None = None
    """Better than the bar, and no bar."""
    spread: tuple[float, float] | None = None
    """The least and the most of those that `measured` is the median of."""

    @property
    def holds(self) -> bool:
        return (self.at_least is None or self.measured >= self.at_least) and (
            self.at_most is None or self.measured <= self.at_most
        )

    @property
    def bar(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:,g}"
        return f"at most {self.at_most:,g}" if self.at_most is not None else ""


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows beside the machine and the time that they were measured at."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": [row._asdict() | {"bar": row.bar, "holds": row.holds} for row in rows],
    }


def machine() -> dict[str, str | int | float]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
