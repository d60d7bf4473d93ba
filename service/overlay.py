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

from contract.arrays import F32, I32, I64, Bool
from contract.errors import FeatureError, UnknownItem
from contract.features import Encoded
from contract.ids import UNKNOWN
from contract.index.base import Answer, Appendable, Appended
from contract.journal import Record
from service.snapshot import Snapshot

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class OverlayItem:
    """What was posted of an item, and where its vectors lie."""

    slot: int
    seq: int
    features: Mapping[str, Any]
    available: bool


class Overlay:
    def __init__(self, snapshot: Snapshot, journal: int) -> None:
        """`journal` is the identity of the journal whose records are applied."""
        self._snapshot = snapshot
        index = snapshot.index
        self.appended = index.append(journal) if isinstance(index, Appendable) else None
        """Where one search finds the rows of the bundle and those of the overlay; None: those of
        the overlay are scanned."""
        dims = snapshot.bundle.manifest.dims
        self.base = dims.items
        """N: the first row of the overlay."""
        self.items: dict[str, OverlayItem] = {}
        self.dead: Bool = np.zeros(dims.items, np.bool_)
        """Bundle rows that must not be returned."""
        self.dead_count = 0
        self.refused = 0
        """Journaled items whose features this bundle's schema cannot encode."""
        self.seq = 0
        """The journal position of the last record that was about an item; 0 before any."""
        self._ids: list[str] = []
        self._slots: dict[str, int] = {}
        self._replaced: dict[int, int] = {}
        self._vectors = np.empty((0, dims.dim), np.float32)
        self._history = np.empty((0, dims.history), np.float32)
        code_width = snapshot.bundle.manifest.features.items.code_width
        self._codes = np.empty((0, code_width), np.int32)
        self._new = np.empty(0, np.bool_)
        self._alive = np.empty(0, np.bool_)

    def __len__(self) -> int:
        """Items of the overlay, available or not."""
        return len(self.items)

    @property
    def slots(self) -> int:
        return len(self._ids)

    @property
    def vectors(self) -> F32:
        return self._vectors[: self.slots]

    @property
    def codes(self) -> I32:
        return self._codes[: self.slots]

    @property
    def new(self) -> Bool:
        """Slots of items that the bundle does not have; those of the newest items come last."""
        return self._new[: self.slots]

    @property
    def alive(self) -> Bool:
        """Slots that may be returned."""
        return self._alive[: self.slots]

    @property
    def searched(self) -> int:
        """How many rows `search` finds, those that are gone included."""
        return self.base + (self.slots if self.appended else 0)

    @property
    def gone(self) -> int:
        """How many of these are gone."""
        return self.dead_count + (int((~self.alive).sum()) if self.appended else 0)

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        """As `Index.search`, over `searched` rows."""
        if self.appended:
            return self.appended.search(queries, k, allowed, self.vectors)
        return self._snapshot.index.search(queries, k, allowed)

    def lives(self, rows: I64) -> Bool:
        """Which of these rows may be returned."""
        in_bundle = rows < self.base
        if in_bundle.all():
            return ~self.dead[rows]
        found = np.empty(rows.shape, np.bool_)
        found[in_bundle] = ~self.dead[rows[in_bundle]]
        found[~in_bundle] = self.alive[rows[~in_bundle] - self.base]
        return found

    def id_of(self, row: int) -> str:
        """The item id of a row of the bundle or of the overlay."""
        if row < self.base:
            return self._snapshot.bundle.item_ids[row]
        return self._ids[row - self.base]

    def row(self, item_id: str) -> int:
        """The row of an item, dead or alive; -1 when neither the bundle nor the overlay has it."""
        slot = self._slots.get(item_id)
        return self._snapshot.bundle.item_ids.row(item_id) if slot is None else self.base + slot

    def require(self, item_id: str) -> int:
        """The row of an item that was not deleted, available or not. Raises UnknownItem."""
        row = self.row(item_id)
        gone = item_id not in self.items and (row >= self.base or self.dead[row])
        if row == UNKNOWN or gone:
            raise UnknownItem(f"item '{item_id}': neither in the bundle nor posted since")
        return row

    def rows(self, item_ids: Sequence[str]) -> I64:
        """The rows of the known ones among these ids, in their order."""
        found = [row for i in item_ids if (row := self.row(i)) != UNKNOWN]
        return np.array(found, np.int64)

    def current(self, rows: I64) -> I64:
        """Rows of the bundle -> where these items are now: a replaced one is in the overlay."""
        dead = self.dead[rows]
        if dead.any():
            rows = rows.copy()
            rows[dead] = [self._replaced.get(row, row) for row in rows[dead].tolist()]
        return rows

    def history_vectors(self, rows: I64) -> F32:
        """Rows of the bundle or the overlay (n,) -> (n, H)."""
        return self._gather(self._snapshot.bundle.history_vectors, self._history, rows)

    def item_vectors(self, rows: I64) -> F32:
        """Rows of the bundle or the overlay (n,) -> (n, D)."""
        return self._gather(self._snapshot.bundle.item_vectors, self._vectors, rows)

    def item_codes(self, rows: I64) -> I32:
        """Rows of the bundle or the overlay (n,) -> (n, C)."""
        return self._gather(self._snapshot.bundle.items.codes, self._codes, rows)

    def _gather(
        self, base: npt.NDArray[Number], live: npt.NDArray[Number], rows: I64
    ) -> npt.NDArray[Number]:
        in_bundle = rows < self.base
        if in_bundle.all():
            return base[rows]
        found = np.empty((len(rows), *base.shape[1:]), base.dtype)
        found[in_bundle] = base[rows[in_bundle]]
        found[~in_bundle] = live[rows[~in_bundle] - self.base]
        return found

    def apply(self, records: Sequence[Record]) -> None:
        """Apply item and delete records, in order. Of several on one item the last one counts, but
        an item that was posted and deleted has its slot: histories may hold it, and all workers
        must answer alike, however they cut the journal into batches.

        Raises BackendError where the index that takes them in does not answer; the same records
        are then to be applied again."""
        posted = {r.body["item_id"]: r for r in records if r.kind == "item"}
        self._upsert(list(posted.values()))
        for record in records:
            if record.kind == "delete":
                item = self.items.get(record.body["item_id"])
                if item is None or item.seq < record.seq:
                    self._delete(record.body["item_id"])
        if self.appended:
            self._append(self.appended, [r for r in records if r.kind != "event"])
        self.seq = max((r.seq for r in records if r.kind != "event"), default=self.seq)

    def _append(self, appended: Appended, records: list[Record]) -> None:
        """Bring the index up to what the overlay now holds of the items in these records."""
        known = {r.body["item_id"] for r in records} & self._slots.keys()
        slots = np.array(sorted(self._slots[item_id] for item_id in known), np.int64)
        alive = slots[self.alive[slots]]
        seqs = [self.items[self._ids[slot]].seq for slot in alive.tolist()]
        appended.upsert(alive + self.base, np.array(seqs, np.int64), self.vectors[alive])
        gone = {r.seq for r in records if r.kind == "item"} - set(seqs)
        dead = slots[~self.alive[slots]]
        appended.delete(dead + self.base, np.array(sorted(gone), np.int64))

    def _upsert(self, records: list[Record]) -> None:
        encoded = {r.body["item_id"]: e for r in records if (e := self._encoded(r)) is not None}
        if not encoded:
            return
        vectors, history, codes = self._embed(encoded)
        for n, record in enumerate(r for r in records if r.body["item_id"] in encoded):
            item_id, available = record.body["item_id"], record.body.get("available", True)
            slot = self._slot(item_id)
            self._vectors[slot], self._history[slot] = vectors[n], history[n]
            self._codes[slot], self._alive[slot] = codes[n], available
            features = record.body.get("features", {})
            self.items[item_id] = OverlayItem(slot, record.seq, features, available)
            row = self._snapshot.bundle.item_ids.row(item_id)
            self._new[slot] = row == UNKNOWN
            if row != UNKNOWN:
                self._replaced[row] = self.base + slot
            self._bury(item_id)

    def _encoded(self, record: Record) -> Encoded | None:
        """A record was checked against the bundle of its day; a later one may have other fields."""
        try:
            return encode_item(self._snapshot, record.body)
        except FeatureError:
            self.refused += 1
            return None

    def _embed(self, items: Mapping[str, Encoded]) -> tuple[F32, F32, I32]:
        """Item vectors (n, D), history vectors (n, H), codes (n, C). An item that the bundle knows
        keeps its trained identity; a new one gets the unknown one."""
        bundle = self._snapshot.bundle
        codes = np.concatenate([e.codes for e in items.values()])
        numbers = np.concatenate([e.numbers for e in items.values()])
        known = [bundle.item_ids.row(item_id) + 1 for item_id in items]
        identity = bundle.item_identity[known]
        vectors, history = self._snapshot.item_tower(identity, Encoded(codes, numbers))
        return vectors, history, codes

    def _delete(self, item_id: str) -> None:
        item = self.items.pop(item_id, None)
        if item:
            self._alive[item.slot] = False
        self._bury(item_id)

    def _bury(self, item_id: str) -> None:
        row = self._snapshot.bundle.item_ids.row(item_id)
        if row != UNKNOWN and not self.dead[row]:
            self.dead[row] = True
            self.dead_count += 1

    def _slot(self, item_id: str) -> int:
        """A slot is an item's for good: a history may hold its row after a delete."""
        slot = self._slots.get(item_id)
        if slot is None:
            slot = self._slots[item_id] = len(self._ids)
            self._ids.append(item_id)
            if self.slots > len(self._alive):
                self._grow(max(64, 2 * len(self._alive)))
        return slot

    def _grow(self, capacity: int) -> None:
        for name in ("_vectors", "_history", "_codes", "_new", "_alive"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


def encode_item(snapshot: Snapshot, body: Mapping[str, Any]) -> Encoded:
    """An item as it is posted. Raises FeatureError naming the item and the field."""
    try:
        return snapshot.bundle.manifest.features.items.encode([body.get("features", {})])
    except FeatureError as error:
        raise FeatureError(f"item '{body['item_id']}': {error}") from error
