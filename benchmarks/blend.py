"""`tandem bench blend`: what diversity and explore do to the lists of a trained run, and cost.

Each user is asked for as if their last interaction had not happened: it is cut off the history that
the service knows, and looked for in the answer.
"""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from benchmarks.table import Row
from contract.arrays import I64
from contract.kinds import HISTORY, SEEN
from contract.store import LocalStore
from offline.build import IndexChoice
from offline.evaluate import targets
from offline.publish import publish
from offline.run import Run, load_run
from service.answer import Answer
from service.engine import recall
from service.request import Blend, Recall
from service.snapshot import Snapshot, load_snapshot
from service.state import State

K = 50
MOST_USERS = 1000
SETTINGS = {
    "the best by score": Blend(),
    **{f"diversity {d}": Blend(diversity=d) for d in (0.1, 0.3, 0.5)},
    **{f"category_diversity {d}": Blend(category_diversity=d) for d in (0.01, 0.05)},
    "max_per_category 10": Blend(max_per_category=10),
    **{f"explore {e}": Blend(explore=e) for e in (0.1, 0.3)},
    "model and similar": Blend(sources={"model": 1.0, "similar": 1.0}),
}


class Asked(NamedTuple):
    user_id: str
    target: str


def measure(path: Path) -> list[Row]:
    """`path` is a run."""
    run = load_run(path)
    with TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        version = publish(run, store, "live", IndexChoice("exact"), force=True).version
        users, positions = _sample(run)
        state = State.of(_before(load_snapshot(store.bundle(version)), run, positions), 1, 1)
        wanted = [
            Asked(
                run.dataset.user_ids[user],
                run.dataset.item_ids[run.dataset.sequences.items[position]],
            )
            for user, position in zip(users.tolist(), positions[users].tolist(), strict=True)
        ]
        return [
            row for name, blend in SETTINGS.items() for row in _rows(state, wanted, name, blend)
        ]


def _sample(run: Run) -> tuple[I64, I64]:
    """Users that are asked for, and for every user the position that their history ends before."""
    users, positions = targets(run.dataset, "test")
    ends = run.dataset.sequences.offsets[1:].copy()
    ends[users] = positions
    chosen = np.linspace(0, len(users) - 1, min(MOST_USERS, len(users)), dtype=np.int64)
    return users[chosen], ends


def _before(snapshot: Snapshot, run: Run, ends: I64) -> Snapshot:
    """The snapshot with histories that end before these positions."""
    sequences = run.dataset.sequences
    kept = run.dataset.before(ends)
    arrays = {
        "user_items_offsets": np.concatenate([[0], np.cumsum(kept)])[sequences.offsets],
        "user_items_rows": sequences.items[kept],
        "user_items_flags": np.full(int(kept.sum()), HISTORY | SEEN, np.uint8),
        "user_items_times": sequences.times[kept],
    }
    bundle = replace(snapshot.bundle, arrays={**snapshot.bundle.arrays, **arrays})
    return replace(snapshot, bundle=bundle)


def _rows(state: State, wanted: list[Asked], name: str, blend: Blend) -> list[Row]:
    likeness, categories, hits, seconds = [], [], [], []
    for asked in wanted:
        begin = time.perf_counter()
        answer = recall(state, Recall(K, asked.user_id, blend=blend))
        seconds.append(time.perf_counter() - begin)
        likeness.append(_likeness(state, answer))
        categories.append(_categories(state, answer))
        hits.append(any(item.item_id == asked.target for item in answer.items))
    label = f"{len(wanted):,} users, {name}:"
    return [
        Row(f"{label} mean cosine in a list", float(np.mean(likeness)), ""),
        Row(f"{label} categories in a list", float(np.mean(categories)), ""),
        Row(f"{label} HR@{K}", float(np.mean(hits)), ""),
        Row(f"{label} p50", float(np.median(seconds)) * 1000, "ms"),
    ]


def _likeness(state: State, answer: Answer) -> float:
    vectors = state.overlay.item_vectors(_listed(state, answer))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float((unit @ unit.T)[np.triu_indices(len(unit), 1)].mean())


def _categories(state: State, answer: Answer) -> int:
    found = np.unique(state.overlay.categories_of(_listed(state, answer)))
    return int(np.count_nonzero(found))


def _listed(state: State, answer: Answer) -> I64:
    return state.overlay.rows([item.item_id for item in answer.items])
