"""`tandem bench growth`: what a recall costs, against what may grow.

The planted world, one worker on one core; histories, interests, items posted since the bundle, k
and filters, each beside the usual recall, by turns. The size of the catalogue is that of the
command. Processor time is what a request took of the worker while 16 waited: of all figures, what
else the machine does moves it least.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.contest import LOADING, pinned
from benchmarks.memory import cpu_seconds
from benchmarks.pace import pace
from benchmarks.planted import HISTORY, planted
from benchmarks.served import questions, serving, write_lines
from benchmarks.table import Row
from benchmarks.world import World
from benchmarks.wrk import saturate
from offline.local import Service

HISTORIES = (10, 200)
INTERESTS = (1, 4)
POSTED = (1_000, 20_000)
QUERIES = {
    "k = 10": "&k=10",
    "k = 200": "&k=200",
    "one filter": "&filter=year%3E%3D2000",
    "two filters": "&filter=year%3E%3D2000&filter=category=category%203",
    "three filters": "&filter=year%3E%3D2000&filter=category=category%203&filter=year%3C2020",
}
"""What is asked beyond the usual; of a parameter that stands twice, the last counts."""
TURNS, SECONDS = 3, 1
RATE = 100.0
"""A second, for the latency: far from saturation in every case."""


class Case(NamedTuple):
    service: Service
    urls: Sequence[str]
    paths: Path
    """The same, in a file."""


class Turn(NamedTuple):
    rate: float
    """Answers a second at saturation."""
    used: float
    """Microseconds of processor time for each of them."""
    failed: int
    waited: Sequence[float]
    """Seconds for each answer at RATE; infinite for one other than 2xx."""


def measure(items: int) -> list[Row]:
    """Each history and each number of interests is a bundle of its own."""
    with ExitStack() as stack:
        usual = _published(stack, items, HISTORY, None)
        cases = {"the usual": _case(stack, usual)}
        for history in HISTORIES:
            made = _published(stack, items, history, None)
            cases[f"a history of {history}"] = _case(stack, made)
        for interests in INTERESTS:
            made = _published(stack, items, HISTORY, interests)
            cases[f"ComiRec-SA, interests: {interests}"] = _case(stack, made)
        for count in POSTED:
            cases[f"{count:,} items posted"] = _case(stack, usual, posted=count)
        for what, query in QUERIES.items():
            cases[what] = _case(stack, usual, query)
        turns = _turns(cases)
    return [row for what in cases for row in _rows(f"{items:,} items, {what}:", turns[what])]


def _published(stack: ExitStack, items: int, history: int, interests: int | None) -> World:
    made = stack.enter_context(planted(items, history, interests))
    made.publish("auto")
    return made


def _case(stack: ExitStack, made: World, query: str = "", posted: int = 0) -> Case:
    service = stack.enter_context(serving(made.folder, made.store))
    _post(service, posted)
    urls = [url + query for url in questions(made.folder, made.run).urls]
    return Case(service, urls, write_lines(made.folder / f"{service.port}.txt", urls))


def _post(service: Service, count: int) -> None:
    """New items, of the categories and years that the others have."""
    items = [
        {"item_id": f"posted {n}", "features": {"category": f"category {n % 50}", "year": 2000}}
        for n in range(count)
    ]
    for start in range(0, count, 1000):
        service.post("/v1/items", {"items": items[start : start + 1000]})


def _turns(cases: Mapping[str, Case]) -> Mapping[str, Sequence[Turn]]:
    """By turns; a first one warms them and does not count."""
    rounds = [{what: _turn(case) for what, case in cases.items()} for _ in range(1 + TURNS)]
    return {what: [turns[what] for turns in rounds[1:]] for what in cases}


def _turn(case: Case) -> Turn:
    before = cpu_seconds(case.service.process.pid)
    answered = saturate(case.service.url, case.paths, SECONDS, (LOADING,))
    used = (cpu_seconds(case.service.process.pid) - before) / (answered.rate * SECONDS)
    with pinned(LOADING):
        waited = pace(case.service.url, case.urls, RATE, SECONDS)
    return Turn(answered.rate, 1e6 * used, answered.failed, waited.tolist())


def _rows(label: str, turns: Sequence[Turn]) -> list[Row]:
    waited = [1000 * seconds for turn in turns for seconds in turn.waited]
    rates, used = [turn.rate for turn in turns], [turn.used for turn in turns]
    failed = sum(turn.failed for turn in turns) + int(np.isinf(waited).sum())
    return [
        Row(f"{label} recall", median(rates), "requests/s", spread=(min(rates), max(rates))),
        Row(f"{label} processor time", median(used), "us", spread=(min(used), max(used))),
        Row(f"{label} p50 at {RATE:g}/s", float(np.percentile(waited, 50)), "ms"),
        Row(f"{label} p99 at {RATE:g}/s", float(np.percentile(waited, 99)), "ms"),
        Row(f"{label} answers other than 2xx", failed, "answers", at_most=0),
    ]
