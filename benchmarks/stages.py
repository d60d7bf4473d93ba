"""`tandem bench stages`: where the processor time of a recall goes, as a picture.

The planted world in sizes that grow by tens, one worker on one core while 16 requests wait at any
time. py-spy samples the stacks of the worker; a sample belongs to the stage of the innermost frame
that names one, so that helpers count for their callers. What is divided by these shares is the
processor time of a request while nobody samples.
"""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.bars import draw_bars
from benchmarks.contest import LOADING
from benchmarks.memory import cpu_seconds
from benchmarks.planted import planted
from benchmarks.served import questions, serving
from benchmarks.table import Row
from benchmarks.world import World
from benchmarks.wrk import saturate
from contract.errors import ExtraMissing, TandemError
from offline.local import Service

LEAST_ITEMS = 10_000
WARM, SECONDS = 2, 4
RATE = 500
"""Samples a second."""
STAGES = {
    "HTTP": ("uvicorn/", "asyncio/runners", "front.py", "drain.py", "wire.py"),
    "round, journal": ("rounds.py", "live.py", "journal.py", "split.py", "variants.py", "cache.py"),
    "who asks": ("asker.py", "users.py"),
    "tower": ("towers.py", "_history (service/engine.py", "embed_users"),
    "search": ("contract/index/",),
    "filter, merge": ("candidates.py", "filters.py", "merge.py", "filter_of"),
    "JSON": ("listed.py", "_body (service/routes/recall.py"),
    "metrics": ("service/metrics.py", "prometheus_client/"),
}
"""What the frames of a stage are known by."""
SERVING = "asyncio_run (uvicorn/"
"""In the stacks of the event loop alone; other threads sleep or look answers over."""
STACK = re.compile(r"^(.*) (\d+)$", re.MULTILINE)


def measure(items: int, picture: Path | None = None) -> list[Row]:
    """Catalogues of LEAST_ITEMS, ten times as many, and so on, up to `items`."""
    if shutil.which("py-spy") is None:
        raise ExtraMissing("bench stages needs py-spy, which samples stacks: pip install py-spy")
    found: dict[str, Mapping[str, float]] = {}
    size = LEAST_ITEMS
    while size <= max(items, LEAST_ITEMS):
        with planted(size) as made:
            made.publish("auto")
            found[f"{size:,} items"] = _stages(made)
        size *= 10
    if picture:
        title = "Where the time of a recall goes"
        what = "microseconds of processor time, one worker, 16 requests waiting, k = 50"
        draw_bars(found, title, what, picture)
    return [
        Row(f"{label}: {stage}", used, "us")
        for label, stages in found.items()
        for stage, used in ({"all": sum(stages.values())} | dict(stages)).items()
    ]


def _stages(made: World) -> Mapping[str, float]:
    """Microseconds of a request in each."""
    asked = questions(made.folder, made.run)
    with serving(made.folder, made.store) as service:
        saturate(service.url, asked.paths, WARM, (LOADING,))
        before = cpu_seconds(service.process.pid)
        answered = saturate(service.url, asked.paths, SECONDS, (LOADING,))
        used = 1e6 * (cpu_seconds(service.process.pid) - before) / (answered.rate * SECONDS)
        counts = _sampled(service, asked.paths, made.folder / "stacks.txt")
    return {stage: used * count / counts.total() for stage, count in counts.items()}


def _sampled(service: Service, paths: Path, stacks: Path) -> Counter[str]:
    command = ["py-spy", "record", "--format", "raw", "--output", str(stacks)]
    command += ["--subprocesses", "--rate", str(RATE), "--duration", str(SECONDS)]
    command += ["--pid", str(service.process.pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as spy:
        saturate(service.url, paths, SECONDS + 1, (LOADING,))
        told = spy.communicate()[1].decode().strip()
    if spy.returncode:
        raise TandemError(f"py-spy failed: {told}; it needs the right to trace, as root has it")
    return stages_of(stacks.read_text())


def stages_of(stacks: str) -> Counter[str]:
    """Samples of each stage, in the order of a request; `stacks` has lines of frames, the outermost
    first, and how often they were seen."""
    counts: Counter[str] = Counter(dict.fromkeys(STAGES, 0))
    for frames, count in STACK.findall(stacks):
        if SERVING in frames:
            counts[_stage(frames.split(";"))] += int(count)
    return counts


def _stage(frames: Sequence[str]) -> str:
    """Of the innermost frame that names one; that of SERVING does."""
    return next(
        stage
        for frame in reversed(frames)
        for stage, names in STAGES.items()
        if any(name in frame for name in names)
    )
