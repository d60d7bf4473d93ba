"""Everything that Prometheus scrapes, right over all workers.

Each worker writes its numbers to files named by its *slot*, not by its process id: when a worker is
killed, the one that takes its place has the same slot and counts on, so nothing that was counted is
lost and the number of files stays that of the workers.
"""

import os
import shutil
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Histogram

    from service.answer import Stages

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

# From a tenth of a millisecond, what a small catalogue takes, to a second, by factors of about 2.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

SOURCES = ("model", "session", "fallback")

COUNTING = ("counter", "histogram")
KINDS = (*COUNTING, "gauge_livemin", "gauge_livemax")
"""The library has a file of each kind for each slot."""
RESERVED = 2**20
"""Bytes of such a file; a series takes some 200."""

Result = Literal["swapped", "refused"]


def prepare_directory(runtime: Path) -> None:
    """Before the workers start: forget the numbers of an earlier service, name the directory to
    the library. Must run before prometheus_client is imported, which looks once."""
    shutil.rmtree(runtime / "metrics", ignore_errors=True)
    (runtime / "metrics").mkdir(parents=True)
    os.environ[DIRECTORY] = str(runtime / "metrics")


class RecallMetrics:
    """The series of one variant that every recall moves: to look them up by their labels takes as
    long as to move them."""

    def __init__(self, metrics: "Metrics", variant: str) -> None:
        seconds = metrics.stage_seconds
        self.encode = seconds.labels(variant, "encode")
        self.tower = seconds.labels(variant, "tower")
        self.search = seconds.labels(variant, "search")
        self.merge = seconds.labels(variant, "merge")
        self.total = metrics.recall_seconds.labels(variant)
        self.widened = metrics.widened.labels(variant)
        self.exact = metrics.exact.labels(variant)
        self.answers = {source: metrics.answers.labels(variant, source) for source in SOURCES}

    def observe(self, stages: "Stages", recalls: int) -> None:
        """So many recalls, each of which took this."""
        for histogram, seconds in (
            (self.encode, stages.encode),
            (self.tower, stages.tower),
            (self.search, stages.search),
            (self.merge, stages.merge),
            (self.total, stages.total),
        ):
            observe(histogram, seconds, recalls)


def observe(histogram: "Histogram", seconds: float, times: int = 1) -> None:
    """As `histogram.observe(seconds)` so many times, with two writes to the file."""
    at = bisect_left(histogram._upper_bounds, seconds)
    histogram._sum.inc(times * seconds)
    histogram._buckets[at].inc(times)


def _reserve(path: Path, anew: bool) -> None:
    """Zeros, written out. The library would make a file with holes and map it, and a process that
    touches a hole when the disk is full is killed. A worker that takes another's place finds its
    counts; the gauges start `anew`, in the room that they have."""
    if anew or not path.exists():
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(bytes(RESERVED))


class Metrics:
    def __init__(self, registry: "CollectorRegistry", slot: int, runtime: Path) -> None:
        from prometheus_client import Counter, Gauge, Histogram, values

        for kind in KINDS:
            _reserve(runtime / "metrics" / f"{kind}_{slot}.db", anew=kind not in COUNTING)
        values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        self.requests = Counter(
            "tandem_requests",
            "Answered HTTP requests.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "tandem_request_seconds",
            "From the request's arrival to the start of the answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "tandem_recall_stage_seconds",
            "One recall by stage: encode, tower, search, merge.",
            ("variant", "stage"),
            buckets=SECONDS,
            registry=registry,
        )
        self.recall_seconds = Histogram(
            "tandem_recall_seconds",
            "One recall, all stages.",
            ("variant",),
            buckets=SECONDS,
            registry=registry,
        )
        self.answers = Counter(
            "tandem_answers",
            "Recommendations by source, kept ones among them.",
            ("variant", "source"),
            registry=registry,
        )
        self.stand_ins = Counter(
            "tandem_stand_ins",
            "Answers of the main variant to users of one that has no bundle.",
            ("variant",),
            registry=registry,
        )
        self.turned_away = Counter(
            "tandem_recalls_turned_away",
            "Recalls that were not admitted, or whose turn came after their deadline.",
            ("reason",),
            registry=registry,
        )
        self.cache_lookups = Counter(
            "tandem_cache_lookups",
            "Looks into the cache of answers, by result.",
            ("result",),
            registry=registry,
        )
        self.widened = Counter(
            "tandem_searches_widened",
            "Recalls whose filter left too few, so that it had to go into a second search.",
            ("variant",),
            registry=registry,
        )
        self.exact = Counter(
            "tandem_searches_exact",
            "Recalls for which few items were eligible: all were scored and no index was asked.",
            ("variant",),
            registry=registry,
        )
        self.recheck_wanted = Counter(
            "tandem_recheck_wanted_items",
            "Items of the exact answers to the recalls that were answered once more.",
            ("variant",),
            registry=registry,
        )
        self.recheck_found = Counter(
            "tandem_recheck_found_items",
            "As many of these, or as good ones, were in the answers that were given.",
            ("variant",),
            registry=registry,
        )
        self.recheck_signals = Counter(
            "tandem_recheck_signals",
            "Answers looked at again, by the decile of the bundle's reference that a signal of "
            "theirs is in.",
            ("variant", "signal", "decile"),
            registry=registry,
        )
        self.recheck_compared = Counter(
            "tandem_recheck_compared_items",
            "First items of answers that were held against the answer to another user.",
            ("variant",),
            registry=registry,
        )
        self.recheck_common = Counter(
            "tandem_recheck_common_items",
            "Those of them that the other answer had too.",
            ("variant",),
            registry=registry,
        )
        self.reference_overlap = Gauge(
            "tandem_reference_overlap",
            "The share of common items when the bundle was published; 0 without a reference.",
            ("variant",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.writes = Counter(
            "tandem_writes", "Acknowledged journal entries by kind.", ("kind",), registry=registry
        )
        self.swaps = Counter(
            "tandem_swaps",
            "Bundles loaded or refused, by result.",
            ("variant", "result"),
            registry=registry,
        )
        self.bundle = Gauge(
            "tandem_bundle_info",
            "1 for the bundle that is served.",
            ("variant", "version", "model", "backend"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.bundle_created = Gauge(
            "tandem_bundle_created_timestamp_seconds",
            "When the bundle was published; the oldest over the workers.",
            ("variant",),
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.bundle_loaded = Gauge(
            "tandem_bundle_loaded_timestamp_seconds",
            "When the bundle was loaded; the oldest over the workers.",
            ("variant",),
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.overlay_items = Gauge(
            "tandem_overlay_items",
            "Items added or changed since the bundle.",
            ("variant",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.overlay_refused = Gauge(
            "tandem_overlay_refused_items",
            "Journaled items that the schema of this bundle cannot encode.",
            ("variant",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.journal_seq = Gauge(
            "tandem_journal_seq",
            "Journal position that all workers have applied.",
            ("variant",),
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.journal_reachable = Gauge(
            "tandem_journal_reachable",
            "1 while what others write comes to all workers.",
            ("variant",),
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.recalls: dict[str, RecallMetrics] = {}
        """By variant."""
        for reason in ("full", "late"):
            self.turned_away.labels(reason)
        for result in ("hit", "miss"):
            self.cache_lookups.labels(result)

    def begin(self, variant: str) -> None:
        """Every series of a variant that is known beforehand, at zero."""
        for result in ("swapped", "refused"):
            self.swaps.labels(variant, result)
        self.recalls[variant] = RecallMetrics(self, variant)
        for metric in (
            self.stand_ins,
            self.recheck_wanted,
            self.recheck_found,
            self.recheck_compared,
            self.recheck_common,
            self.reference_overlap,
            self.bundle_created,
            self.bundle_loaded,
            self.overlay_items,
            self.overlay_refused,
            self.journal_seq,
            self.journal_reachable,
        ):
            metric.labels(variant)


def exposition() -> tuple[bytes, str]:
    """The sums over all workers, in Prometheus' text format, and its content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
