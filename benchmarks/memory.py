"""Memory from the kernel's own books: what the workers share of a bundle, and what a step needs at
most."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

KIB = 1024
HEAD = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")


def descendants(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(d for child in children for d in descendants(int(child)))]


def mapped_bytes(pids: list[int], directory: Path) -> int:
    """Proportional set size of the files under `directory` over the processes: a page that n
    processes share counts as an n-th in each, so that the sum counts it once."""
    return sum(
        pss for pid in pids for path, pss in _mappings(pid) if path.startswith(f"{directory}/")
    )


def proportional_bytes(pid: int) -> int:
    """Proportional set size of a process."""
    return sum(pss for _, pss in _mappings(pid))


def cpu_seconds(pid: int) -> float:
    """Processor time so far of a process and all that it started."""
    stats = [Path(f"/proc/{p}/stat").read_text().rpartition(")")[2] for p in descendants(pid)]
    ticks = sum(int(field) for stat in stats for field in stat.split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def forget_peak() -> None:
    """From now on `peak_bytes` speaks of what comes after."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Most bytes that this process had resident at once, pages of mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    raise ValueError("/proc/self/status has no VmHWM; peak memory needs a Linux kernel")


def _mappings(pid: int) -> Iterator[tuple[str, int]]:
    path = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = HEAD.match(line)
        if head:
            path = head.group(1)
        elif line.startswith("Pss:"):
            yield path, int(line.split()[1]) * KIB
