"""`tandem bench filters`: recalls through filters that keep a tenth, a hundredth and a thousandth.

In process, on one thread: the engine on a generated catalogue behind the backend that suits its
size, k = 50, seen items left out. The attributes are planted: `spread` has nothing to do with the
vectors, `cluster` is the items furthest in one direction, near some users and far from others,
`rank` is a number to ask ranges of. The true answers are counted here, from the planted masks and a
product of all vectors.
"""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import polars as pl

from benchmarks.table import Row
from benchmarks.world import world
from contract.arrays import F32, Bool
from contract.bundle import Bundle
from offline.embed import embed_items, known_rows
from offline.run import Run
from offline.tune import one_thread
from service.answer import Answer
from service.conditions import AnyOf, Condition, Within
from service.engine import recall
from service.request import Recall
from service.selection import Selector
from service.snapshot import Snapshot, load_snapshot
from service.state import State

K = 50
ASKERS = 200
SHARES = (0.1, 0.01, 0.001)
BACKEND = "auto"
LEAST_RECALL = 0.97
TIMES = 20


class Case(NamedTuple):
    """A filter and the items (N,) that pass it."""

    name: str
    conditions: tuple[Condition, ...]
    passing: Bool


def measure(items: int) -> list[Row]:
    with world(items) as made:
        run, cases = _plant(made.run)
        version = made._replace(run=run).publish(BACKEND)
        state = State.of(load_snapshot(made.store.bundle(version)), 1000, 1)
        everything = Case("no filter", (), np.ones(items, np.bool_))
        with one_thread():
            rows, plain = _measure(state, everything, f"{items:,} items, {everything.name}:", None)
            for case in cases:
                rows += _measure(state, case, f"{items:,} items, {case.name}:", plain)[0]
    return rows


def _plant(run: Run) -> tuple[Run, list[Case]]:
    """The run with three attributes that its model does not read, and what they ask."""
    dataset, rng = run.dataset, np.random.default_rng(11)
    count = len(dataset.item_ids)
    split = dataset.split()
    vectors = embed_items(run.model, dataset, known_rows(dataset.counts(split.train_end))).items
    ranks = {
        "spread": rng.permutation(count),
        "cluster": np.argsort(np.argsort(-(vectors @ rng.standard_normal(vectors.shape[1])))),
        "rank": rng.permutation(count),
    }
    columns = [
        pl.Series(name, [[_tag(s) for s in SHARES if rank < s * count] for rank in ranks[name]])
        for name in ("spread", "cluster")
    ]
    recipe = run.description.recipe.model_copy(
        update={"attributes": {"spread": "tags", "cluster": "tags", "rank": "number"}}
    )
    table = dataset.attributes.with_columns(*columns, pl.Series("rank", ranks["rank"]))
    planted = replace(
        run,
        description=run.description.model_copy(update={"recipe": recipe}),
        dataset=replace(dataset, attributes=table),
    )
    asked: list[tuple[str, Callable[[float], Condition]]] = [
        ("spread", lambda share: AnyOf("spread", (_tag(share),))),
        ("cluster", lambda share: AnyOf("cluster", (_tag(share),))),
        ("rank", lambda share: Within("rank", ((0, np.ceil(share * count) - 1),))),
    ]
    return planted, [
        Case(f"{name} {_tag(share)}", (condition(share),), ranks[name] < share * count)
        for name, condition in asked
        for share in SHARES
    ]


def _tag(share: float) -> str:
    return f"{share:.1%}"


def _measure(state: State, case: Case, label: str, plain: float | None) -> tuple[list[Row], float]:
    """The rows of a case, and its median in microseconds; `plain` is that of no filter."""
    bundle = state.snapshot.bundle
    users = np.linspace(0, bundle.manifest.dims.users - 1, ASKERS, dtype=np.int64).tolist()
    asked = [Recall(K, bundle.user_ids[user], conditions=case.conditions) for user in users]
    answers = [recall(state, request) for request in asked]
    wanted = [_best(state.snapshot, user, case.passing) for user in users]
    median = _median(lambda n: recall(state, asked[n]), ASKERS)
    shares = [_recall(bundle, a, best) for a, best in zip(answers, wanted, strict=True)]
    full = [len(a.items) == len(best) for a, best in zip(answers, wanted, strict=True)]
    rows = [
        Row(f"{label} recall@{K}", float(np.mean(shares)), "", at_least=LEAST_RECALL),
        Row(f"{label} answers with k of k", float(np.mean(full)), "", at_least=1.0),
        Row(f"{label} scored without the index", float(np.mean([a.exact for a in answers])), ""),
        Row(f"{label} p50", median, "us"),
    ]
    if plain is not None:
        rows.append(Row(f"{label} p50 over that without a filter", median / plain, "times"))
        rows.append(Row(f"{label} p50 to find the rows at first", _first(state, case), "us"))
    return rows, median


def _first(state: State, case: Case) -> float:
    """Of a filter that was not asked for lately."""
    snapshot = state.snapshot
    postings, vectors = snapshot.bundle.postings, snapshot.bundle.item_vectors
    return _median(lambda _: Selector(postings, vectors).select(case.conditions), TIMES)


def _best(snapshot: Snapshot, user: int, passing: Bool) -> set[int]:
    """The rows of the true answer."""
    bundle = snapshot.bundle
    seen, _ = bundle.history(user)
    scores: F32 = (snapshot.embed_known(user) @ bundle.item_vectors.T).max(axis=0)
    eligible = passing.copy()
    eligible[seen] = False
    rows = np.flatnonzero(eligible)
    return set(rows[np.argsort(-scores[rows], kind="stable")[:K]].tolist())


def _recall(bundle: Bundle, answer: Answer, best: set[int]) -> float:
    found = {bundle.item_ids.row(item.item_id) for item in answer.items}
    return len(found & best) / len(best) if best else 1.0


def _median(call: Callable[[int], object], times: int) -> float:
    """Microseconds."""
    seconds = []
    for n in range(times):
        started = perf_counter()
        call(n)
        seconds.append(perf_counter() - started)
    return float(np.median(seconds)) * 1e6
