"""The overlay beyond what is scanned: sealed, changed and searched, beside an exact scan."""

from collections.abc import Iterator

import numpy as np
import pytest

from contract.arrays import F32, I64, Bool
from contract.index import growing
from contract.index.base import Answer
from contract.index.exact import scan
from contract.merge import merge
from service.segment import Segment

DIM, K = 16, 10
SCANNED, TAIL = 300, 50
SLOTS = 5_000


class Slots:
    """Vectors as an overlay owns them, and a segment that is told of every write."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(11)
        self.centres = self.rng.standard_normal((60, DIM))
        self.segment = Segment(SCANNED, TAIL)
        self.vectors: F32 = np.empty((0, DIM), np.float32)

    def draw(self, count: int) -> F32:
        drawn = self.centres[self.rng.integers(0, 60, count)]
        drawn = drawn + 0.3 * self.rng.standard_normal((count, DIM))
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn.astype(np.float32)

    def append(self, count: int) -> I64:
        slots = np.arange(len(self.vectors), len(self.vectors) + count)
        self.vectors = np.concatenate([self.vectors, self.draw(count)])
        self.segment.update(slots, self.vectors)
        return slots

    def change(self, slots: I64) -> None:
        self.vectors[slots] = self.draw(len(slots))
        self.segment.update(slots, self.vectors)

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> list[Answer]:
        """The best k distinct ones of each query."""
        found = self.segment.search(queries, k, allowed, self.vectors)
        return [merge(rows, scores, k) for rows, scores in zip(*found, strict=True)]

    def recall(self, k: int, allowed: Bool | None = None) -> float:
        """Beside a scan of what is allowed; every score that was found is right."""
        queries = self.draw(100)
        eligible = np.arange(len(self.vectors)) if allowed is None else np.flatnonzero(allowed)
        best, _ = scan(self.vectors, queries, k, eligible)
        shares = []
        for query, wanted, (rows, scores) in zip(
            queries, best, self.search(queries, k, allowed), strict=True
        ):
            assert len(rows) == min(k, len(eligible))
            assert np.isin(rows, eligible).all()
            np.testing.assert_allclose(scores, self.vectors[rows] @ query, atol=1e-5)
            shares.append(np.isin(wanted[: len(rows)], rows).mean())
        return float(np.mean(shares))


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slots]:
    monkeypatch.setattr(growing, "PROBES", 24)
    made = Slots()
    yield made
    made.segment.settle(made.vectors)


def sealed(slots: Slots) -> Slots:
    for _ in range(SLOTS // 250):
        slots.append(250)
    slots.segment.settle(slots.vectors)
    return slots


def test_few_slots_are_searched_exactly(slots: Slots) -> None:
    for count in (1, 7, SCANNED - 8):
        slots.append(count)

        assert slots.recall(K) == 1


def test_nothing_is_found_in_nothing(slots: Slots) -> None:
    rows, scores = slots.segment.search(slots.draw(2), 3, None, slots.vectors)

    assert (rows == -1).all()
    assert (scores == -np.inf).all()


def test_a_search_is_right_at_every_size_while_lists_are_made_beside_it(slots: Slots) -> None:
    for _ in range(SLOTS // 250):
        newest = slots.append(250)

        assert slots.recall(K) > 0.95
        for slot in newest[::50]:
            ((rows, scores),) = slots.search(slots.vectors[[slot]], 1)
            assert rows.tolist() == [slot]
            assert scores[0] == pytest.approx(1, abs=1e-5)


def test_sealed_slots_are_found_as_they_are_now(slots: Slots) -> None:
    changed = sealed(slots).rng.choice(SLOTS, 800, replace=False)

    # In the tail, in the file, and in lists that were made anew.
    for part in np.array_split(changed, [20, 100, 400]):
        slots.change(np.sort(part))
        assert slots.recall(K) > 0.95
        for slot in part[:10]:
            ((rows, _),) = slots.search(slots.vectors[[slot]], 1)
            assert rows.tolist() == [slot]
    slots.change(np.arange(SLOTS))
    slots.change(np.arange(SLOTS))
    slots.segment.settle(slots.vectors)
    assert slots.recall(K) > 0.95


def test_what_is_not_allowed_is_not_found_and_k_are_whenever_k_are_allowed(slots: Slots) -> None:
    sealed(slots).append(TAIL)
    total = len(slots.vectors)

    for count in (3, 60, 2_500, 4_900):
        assert slots.recall(K, slots.rng.permutation(total) < count) > 0.95
    (far,) = slots.draw(1)
    allowed = np.ones(total, np.bool_)
    allowed[np.argsort(-slots.vectors @ far)[: total - K - 3]] = False
    assert slots.recall(K, allowed) == 1
    assert len(slots.search(far[None], total, allowed)[0][0]) == K + 3
    nothing = slots.search(slots.draw(3), K, np.zeros(total, np.bool_))
    assert [len(rows) for rows, _ in nothing] == [0, 0, 0]


def test_all_slots_can_be_asked_for(slots: Slots) -> None:
    sealed(slots).append(TAIL)

    ((rows, _),) = slots.search(slots.draw(1), SLOTS + TAIL)

    assert sorted(rows.tolist()) == list(range(SLOTS + TAIL))


def test_slots_written_while_lists_are_made_are_not_missed(slots: Slots) -> None:
    slots.append(SCANNED + 1)
    slots.change(np.arange(0, SCANNED, 2))
    appended = slots.append(5)
    slots.change(np.arange(1, SCANNED, 2))
    slots.segment.settle(slots.vectors)

    for slot in [*range(SCANNED), *appended.tolist()]:
        ((rows, _),) = slots.search(slots.vectors[[slot]], 1)
        assert rows.tolist() == [slot]


def test_vectors_of_other_lengths_are_found_as_well(slots: Slots) -> None:
    lengths = slots.rng.lognormal(0, 0.5, (SLOTS, 1)).astype(np.float32)
    slots.vectors = slots.draw(SLOTS) * lengths
    slots.segment.update(np.arange(SLOTS), slots.vectors)
    slots.segment.settle(slots.vectors)
    longer = np.sort(slots.rng.choice(SLOTS, 200, replace=False))
    slots.vectors[longer] *= 5
    slots.segment.update(longer, slots.vectors)

    assert slots.recall(K) > 0.9


def test_an_item_finds_itself_among_others_that_are_all_but_equal() -> None:
    slots = Slots()
    slots.append(1)
    near = slots.vectors + 1e-3 * slots.rng.standard_normal((2_000, DIM))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    slots.vectors = near.astype(np.float32)
    slots.segment = Segment(SCANNED, TAIL)
    slots.segment.update(np.arange(2_000), slots.vectors)
    slots.segment.settle(slots.vectors)

    found = slots.search(slots.vectors, 3)

    assert [own for own, (rows, _) in enumerate(found) if own not in rows] == []
