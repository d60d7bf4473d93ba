"""The items added, changed or removed since the bundle.

Rows go on where the bundle's end: overlay slot s is row N + s. A bundle row that was replaced or
deleted is dead: it is no longer returned, though it still counts in the histories that hold it.

An overlay belongs to one snapshot and to one thread. It changes only when journal records are
applied, between two requests and never during one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from contract.arrays import F32, I32, I64, Bool
from contract.bundle import ItemState
from contract.errors import BadItems, UnknownItem
from contract.features import Encoded
from contract.ids import UNKNOWN
from contract.index.base import Answer, Appendable, Appended
from contract.journal import Record
from service.columns import Columns
from service.marks import Marks
from service.posted import encode_items
from service.segment import Segment
from service.snapshot import Snapshot

Number = TypeVar("Number", bound=np.generic)

RESERVED = 2**18
"""Slots that there is room for at first, and doubled when it is full. It is address space: memory
is taken when a slot is written. To copy the arrays of so many slots would hold up a request."""


@dataclass(frozen=True)
class OverlayItem:
    """What was posted of an item."""

    seq: int
    features: Mapping[str, Any]
    available: bool


class Overlay:
    def __init__(self, snapshot: Snapshot, journal: int, segment: Segment | None = None) -> None:
        """`journal` is the identity of the journal whose records are applied; `segment`, that of
        no other overlay, is searched where the index does not append."""
        self._snapshot = snapshot
        index = snapshot.index
        self.appended = index.append(journal) if isinstance(index, Appendable) else None
        """Where one search finds the rows of the bundle and those of the overlay; None: those of
        the overlay are in a segment of their own."""
        self._segment = segment or Segment()
        dims = snapshot.bundle.manifest.dims
        self.base = dims.items
        """N: the first row of the overlay."""
        states = snapshot.bundle.item_states
        self.dead: Bool = states != ItemState.AVAILABLE
        """Bundle rows that must not be returned."""
        self.dead_count = int(self.dead.sum())
        self._deleted = set(np.flatnonzero(states == ItemState.DELETED).tolist())
        """Bundle rows that were deleted, and may have been posted again since."""
        self.columns = Columns(snapshot.bundle.manifest.attributes)
        self.marks = Marks(self.base)
        self._refused: dict[str, int] = {}
        """The items whose last post this bundle's schema cannot encode -> its seq."""
        self.seq = 0
        """The journal position of the last record that was about an item; 0 before any."""
        self._ids: list[str] = []
        self._slots: dict[str, int] = {}
        # As JSON: a few hundred thousand dicts would be a long walk for the garbage collector.
        self._features: list[str] = []
        self._replaced: dict[int, int] = {}
        self._seqs = np.empty(0, np.int64)
        self._vectors = np.empty((0, dims.dim), np.float32)
        self._history = np.empty((0, dims.history), np.float32)
        self._categories = np.empty((0, snapshot.categories.shape[1]), np.int32)
        self._new = np.empty(0, np.bool_)
        self._posted = np.empty(0, np.bool_)
        self._alive = np.empty(0, np.bool_)
        self._posted_count = self._alive_count = 0

    def __len__(self) -> int:
        """Items of the overlay, available or not."""
        return self._posted_count

    @property
    def refused(self) -> int:
        """Items whose last post this bundle's schema cannot encode. They are not returned: what is
        known of them from before is not what they are now."""
        return len(self._refused)

    @property
    def slots(self) -> int:
        return len(self._ids)

    @property
    def vectors(self) -> F32:
        return self._vectors[: self.slots]

    @property
    def new(self) -> Bool:
        """Slots of items that the bundle does not have; those of the newest items come last."""
        return self._new[: self.slots]

    @property
    def categories(self) -> I32:
        """The codes of each slot's category (S, C), as `Snapshot.categories` has those of rows."""
        return self._categories[: self.slots]

    @property
    def alive(self) -> Bool:
        """Slots that may be returned."""
        return self._alive[: self.slots]

    @property
    def unindexed(self) -> bool:
        """Whether it has slots, and none of them is in the index."""
        return self.slots > 0 and not self.appended

    @property
    def searched(self) -> int:
        """How many rows `search` finds, those that are gone included."""
        return self.base + (self.slots if self.appended else 0)

    @property
    def gone(self) -> int:
        """How many of these are gone."""
        return self.dead_count + (self.slots - self._alive_count if self.appended else 0)

    def item(self, item_id: str) -> OverlayItem | None:
        """What was posted of an item; None where it was not, or was deleted since."""
        slot = self._slots.get(item_id)
        if slot is None or not self._posted[slot]:
            return None
        features = orjson.loads(self._features[slot])
        return OverlayItem(int(self._seqs[slot]), features, bool(self._alive[slot]))

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        """As `Index.search`, over `searched` rows."""
        if self.appended:
            return self.appended.search(queries, k, allowed, self.vectors)
        return self._snapshot.index.search(queries, k, allowed)

    def search_slots(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        """The rows of the overlay that are nearest to `queries` (Q, D), and their scores: (Q, m),
        in no order, a row at most twice for a query, -1 and -inf for none. k of them wherever so
        many are alive, or in `allowed`, which are alive.

        For an index that does not append."""
        if allowed is None and self._alive_count < self.slots:
            allowed = self.alive
        slots, scores = self._segment.search(queries, k, allowed, self.vectors)
        return np.where(slots < 0, slots, slots + self.base), scores

    def settle(self) -> None:
        """Wait for what is being done beside to keep the search fast."""
        self._segment.settle(self.vectors)

    def lives(self, rows: I64) -> Bool:
        """Which of these rows may be returned; row -1 may be told either way."""
        in_bundle = rows < self.base
        if not self.slots or in_bundle.all():
            return ~self.dead[rows] if self.dead_count else in_bundle
        found = np.empty(rows.shape, np.bool_)
        found[in_bundle] = ~self.dead[rows[in_bundle]]
        found[~in_bundle] = self.alive[rows[~in_bundle] - self.base]
        return found

    def id_of(self, row: int) -> str:
        """The item id of a row of the bundle or of the overlay."""
        if row < self.base:
            return self._snapshot.bundle.item_ids[row]
        return self._ids[row - self.base]

    def ids_of(self, rows: I64) -> list[str]:
        """The item ids of rows (n,) of the bundle or of the overlay."""
        if not self.slots:
            return self._snapshot.bundle.item_ids.of_rows(rows)
        return [self.id_of(row) for row in rows.tolist()]

    def quoted(self, rows: I64) -> Sequence[bytes] | None:
        """The item ids of rows (n,) of the bundle or of the overlay, as they stand between the
        quotes of JSON; None where one of the bundle's may stand there in another way."""
        texts = self._snapshot.bundle.item_ids.texts
        if not texts.quotable:
            return None
        found = texts.quoted(np.minimum(rows, self.base - 1))
        for at in np.flatnonzero(rows >= self.base).tolist():
            found[at] = orjson.dumps(self._ids[rows[at] - self.base])[1:-1]
        return found

    def row(self, item_id: str) -> int:
        """The row of an item, dead or alive; -1 when neither the bundle nor the overlay has it."""
        slot = self._slots.get(item_id)
        return self._snapshot.bundle.item_ids.row(item_id) if slot is None else self.base + slot

    def knows(self, item_id: str) -> bool:
        """Whether there is such an item, and be it that its last post was refused."""
        return item_id in self._refused or self._held(self.row(item_id))

    def require(self, item_id: str) -> int:
        """The row of an item that was not deleted, available or not. Raises UnknownItem, also where
        the last post of the item was refused."""
        row = self.row(item_id)
        if item_id in self._refused:
            raise UnknownItem(
                f"item '{item_id}': bundle {self._snapshot.version} cannot encode what was posted "
                "of it last; post it again"
            )
        if not self._held(row):
            raise UnknownItem(f"item '{item_id}': neither in the bundle nor posted since")
        return row

    def _held(self, row: int) -> bool:
        """Whether a row is that of an item that was not deleted."""
        if row < self.base:
            return row != UNKNOWN and row not in self._deleted
        return bool(self._posted[row - self.base])

    def rows(self, item_ids: Sequence[str]) -> I64:
        """The rows of the known ones among these ids, in their order."""
        found = [row for i in item_ids if (row := self.row(i)) != UNKNOWN]
        return np.array(found, np.int64)

    def current(self, rows: I64) -> I64:
        """Rows of the bundle -> where these items are now: a replaced one is in the overlay."""
        if not self._replaced:
            return rows
        dead = self.dead[rows]
        if dead.any():
            rows = rows.copy()
            rows[dead] = [self._replaced.get(row, row) for row in rows[dead].tolist()]
        return rows

    def history_vectors(self, rows: I64) -> F32:
        """Rows of the bundle or the overlay (n,) -> (n, H)."""
        return self._gather(self._snapshot.bundle.history_vectors, self._history, rows)

    def put_history(self, rows: I64, place: F32) -> None:
        """The same into `place` (n, H): for many, half the time."""
        base = self._snapshot.bundle.history_vectors
        if self.slots and bool((rows >= self.base).any()):
            place[:] = self._gather(base, self._history, rows)
        else:
            # With "clip", which these rows do not need, numpy makes no copy in between.
            np.take(base, rows, axis=0, out=place, mode="clip")

    def item_vectors(self, rows: I64) -> F32:
        """Rows of the bundle or the overlay (n,) -> (n, D)."""
        return self._gather(self._snapshot.bundle.item_vectors, self._vectors, rows)

    def categories_of(self, rows: I64) -> I32:
        """Rows of the bundle or the overlay (n,) -> the codes of their category (n, C)."""
        return self._gather(self._snapshot.categories, self._categories, rows)

    def _gather(
        self, base: npt.NDArray[Number], live: npt.NDArray[Number], rows: I64
    ) -> npt.NDArray[Number]:
        if not self.slots:
            return base[rows]
        in_bundle = rows < self.base
        if in_bundle.all():
            return base[rows]
        found = np.empty((len(rows), *base.shape[1:]), base.dtype)
        found[in_bundle] = base[rows[in_bundle]]
        found[~in_bundle] = live[rows[~in_bundle] - self.base]
        return found

    def apply(self, records: Sequence[Record]) -> None:
        """Apply item and delete records, in order. Of several on one item the last one counts, but
        an item that was posted, and deleted or refused after, has its slot: histories may hold it,
        and all workers must answer alike, however they cut the journal into batches.

        Raises BackendError where the index that takes them in does not answer; the same records
        are then to be applied again."""
        records = [r for r in records if r.kind in ("item", "delete")]
        if not records:
            return
        self._post([r for r in records if r.kind == "item"])
        for record in records:
            if record.kind == "delete":
                self._delete(record.body["item_id"], record.seq)
        if self.appended:
            self._append(self.appended, records)
        self.seq = records[-1].seq

    def _append(self, appended: Appended, records: Sequence[Record]) -> None:
        """Bring the index up to what the overlay now holds of the items in these records."""
        known = {r.body["item_id"] for r in records} & self._slots.keys()
        slots = np.array(sorted(self._slots[item_id] for item_id in known), np.int64)
        alive = slots[self.alive[slots]]
        seqs = self._seqs[alive]
        appended.upsert(alive + self.base, seqs, self.vectors[alive])
        gone = {r.seq for r in records if r.kind == "item"} - set(seqs.tolist())
        dead = slots[~self.alive[slots]]
        appended.delete(dead + self.base, np.array(sorted(gone), np.int64))

    def _post(self, posts: list[Record]) -> None:
        """A record was checked against the bundle of its day; a later one may have other fields, or
        an earlier one."""
        last = _by_item(posts)
        try:
            encoded = encode_items(self._snapshot, [post.body for post in last.values()])
            taken = last
        except BadItems:
            taken = _by_item([post for post in posts if self._encodes(post)])
            encoded = encode_items(self._snapshot, [post.body for post in taken.values()])
        if taken:
            self._upsert(list(taken.values()), encoded)
        for item_id, post in last.items():
            if taken.get(item_id) is post:
                self._refused.pop(item_id, None)
            else:
                self._refused[item_id] = post.seq
                self._hide(item_id)

    def _encodes(self, post: Record) -> bool:
        try:
            encode_items(self._snapshot, [post.body])
        except BadItems:
            return False
        return True

    def _upsert(self, records: list[Record], encoded: Encoded) -> None:
        ids = [record.body["item_id"] for record in records]
        rows = np.array([self._snapshot.bundle.item_ids.row(item_id) for item_id in ids], np.int64)
        vectors, history = self._embed(rows, encoded)
        slots = np.array([self._slot(item_id) for item_id in ids], np.int64)
        self._vectors[slots], self._history[slots] = vectors, history
        self._categories[slots] = self._snapshot.categories_in(encoded.codes)
        self._new[slots] = rows == UNKNOWN
        self._seqs[slots] = [record.seq for record in records]
        for slot, record in zip(slots.tolist(), records, strict=True):
            features = record.body.get("features", {})
            # Text, because orjson's bytes keep the larger block that they were written in.
            self._features[slot] = orjson.dumps(features).decode()
            self.columns.put(slot, features)
        self._show(slots, np.array([r.body.get("available", True) for r in records], np.bool_))
        self._replace(rows, slots)
        if not self.appended:
            self._segment.update(slots, self.vectors)

    def _embed(self, rows: I64, items: Encoded) -> tuple[F32, F32]:
        """Item vectors (n, D) and history vectors (n, H). An item that the bundle knows, in one of
        its `rows`, keeps its trained identity; a new one gets the unknown one."""
        return self._snapshot.item_tower(self._snapshot.bundle.item_identity[rows + 1], items)

    def _show(self, slots: I64, available: Bool) -> None:
        """These distinct slots were posted."""
        self._posted_count += int((~self._posted[slots]).sum())
        self._alive_count += int(available.sum()) - int(self._alive[slots].sum())
        self._posted[slots], self._alive[slots] = True, available

    def _replace(self, rows: I64, slots: I64) -> None:
        """What the bundle has in these rows, -1 for nothing, is now in these slots."""
        known = rows != UNKNOWN
        rows, slots = rows[known], slots[known]
        self._replaced |= zip(rows.tolist(), (slots + self.base).tolist(), strict=True)
        self._bury(rows)

    def _delete(self, item_id: str, seq: int) -> None:
        if self._posted_at(item_id) > seq:
            return
        self._refused.pop(item_id, None)
        self._hide(item_id)
        row = self._snapshot.bundle.item_ids.row(item_id)
        if row != UNKNOWN:
            self._deleted.add(row)

    def _posted_at(self, item_id: str) -> int:
        """The seq of the last post of an item that was not deleted since, else 0."""
        if item_id in self._refused:
            return self._refused[item_id]
        slot = self._slots.get(item_id)
        return int(self._seqs[slot]) if slot is not None and self._posted[slot] else 0

    def _hide(self, item_id: str) -> None:
        """Neither its slot nor the bundle's row is returned any more."""
        slot = self._slots.get(item_id)
        if slot is not None and self._posted[slot]:
            self._posted_count -= 1
            self._alive_count -= int(self._alive[slot])
            self._posted[slot] = self._alive[slot] = False
        row = self._snapshot.bundle.item_ids.row(item_id)
        if row != UNKNOWN:
            self._bury(np.array([row]))

    def _bury(self, rows: I64) -> None:
        """These distinct rows of the bundle are no longer returned."""
        self.dead_count += int((~self.dead[rows]).sum())
        self.dead[rows] = True

    def _slot(self, item_id: str) -> int:
        """A slot is an item's for good: a history may hold its row after a delete."""
        slot = self._slots.get(item_id)
        if slot is None:
            slot = self._slots[item_id] = len(self._ids)
            self._ids.append(item_id)
            self._features.append("{}")
            if self.slots > len(self._alive):
                self._grow(max(RESERVED, 2 * len(self._alive)))
        return slot

    def _grow(self, capacity: int) -> None:
        self.marks = Marks(self.base + capacity)
        arrays = ("_vectors", "_history", "_categories", "_new", "_seqs", "_posted", "_alive")
        for name in arrays:
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


def _by_item(posts: Sequence[Record]) -> dict[str, Record]:
    """The last of each item."""
    return {post.body["item_id"]: post for post in posts}
