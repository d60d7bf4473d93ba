"""Milvus: the index on a server, for catalogues that outgrow one machine.

The file in the bundle names a collection, which is never changed but for what is written online:
each journal adds rows under keys of its own. The exact scores and the short lists come from the
item vectors of the bundle, which are mapped anyway.
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from contract.arrays import F32, I64, Bool
from contract.errors import BundleError, RecipeError, SettingsError
from contract.index import _milvus
from contract.index._milvus import Collection
from contract.index.base import (
    Answer,
    Appended,
    Effort,
    Hosted,
    Index,
    Matrix,
    checked_queries,
    require_at_least,
    require_match,
)
from contract.index.exact import Stacked, ordered, scan, scan_or_walk

# As in the other graphs: the server's work counts as the worker's own would.
ROWS_PER_STEP = 25

# What Milvus takes at most, in one answer and as the width of a search.
MOST_ANSWERS, MOST_EF = 16_384, 32_768

# Of removed rows in an expression. milvus-lite takes 60 ms to parse one of 2,500.
LISTED = 1_000

# Keys of what a journal appended: its identity above these bits, the seq in them.
SEQ_BITS = 32


@dataclass(frozen=True)
class Place:
    """What stands in the bundle's file: which collection, and what must be in it."""

    uri: str
    """Empty: the file `milvus.db` of the store."""
    collection: str
    rows: int
    dim: int


PLACE = TypeAdapter(Place)


class MilvusBackend(Hosted):
    filename = "index.milvus"
    effort = Effort("ef", "candidates")

    @dataclass(frozen=True)
    class Build:
        uri: str = ""
        """Of the server, `http://host:19530`, or a path that ends in .db; empty: the file
        `milvus.db` of the store. TANDEM_MILVUS_URI goes before it, also where it is read."""
        m: int = 32
        """Edges of a node; the lowest layer has twice as many."""
        ef_construction: int = 200
        """Candidates kept while a node is placed: slower to build, better edges."""

        def __post_init__(self) -> None:
            require_at_least(2, m=self.m)
            require_at_least(1, ef_construction=self.ef_construction)
            _require_no_password(self.uri)

    @dataclass(frozen=True)
    class Search:
        ef: int = 128
        """Candidates kept during a search, raised to k where k is larger."""

        def __post_init__(self) -> None:
            require_at_least(1, ef=self.ef)

    @staticmethod
    def build(vectors: F32, path: Path, params: Build) -> None:
        uri = os.environ.get("TANDEM_MILVUS_URI", "") or params.uri
        name = f"tandem_{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(4)}"
        place = Place(MilvusBackend.Build(uri).uri, name, *vectors.shape)
        _collection(path, place).create(vectors, params.m, params.ef_construction)
        path.write_bytes(orjson.dumps(asdict(place)))

    @staticmethod
    def open(path: Path, vectors: F32, build: Build, search: Search) -> Index:
        place = _read(path)
        require_match(path, "dimensions", place.dim, vectors.shape[1])
        require_match(path, "rows", place.rows, len(vectors))
        collection = _collection(path, place)
        found = collection.shape(place.rows) if collection.exists() else None
        if found != vectors.shape:
            what = f"{found[0]} rows of {found[1]} dimensions in" if found else "no"
            raise BundleError(
                f"{path}: Milvus at {collection.uri} has {what} collection {place.collection}, "
                f"expected {place.rows} of {place.dim}; 'tandem rollback --to' the bundle's "
                "version builds it again"
            )
        return MilvusIndex(collection, vectors, search.ef)

    @staticmethod
    def exclusive(path: Path) -> str | None:
        uri = _uri(path, _read(path))
        if not _milvus.is_file(uri):
            return None
        return f"{uri} is open to one process; {_milvus.sharing(uri)}"

    @staticmethod
    def exists(path: Path) -> bool:
        place = _read(path)
        collection = _collection(path, place)
        return collection.exists() and collection.shape(place.rows) == (place.rows, place.dim)

    @staticmethod
    def restore(path: Path, vectors: F32, build: Build) -> None:
        collection = _collection(path, _read(path))
        collection.drop()
        collection.create(vectors, build.m, build.ef_construction)

    @staticmethod
    def activate(path: Path, channel: str) -> None:
        _collection(path, _read(path)).alias("tandem_" + re.sub(r"\W", "_", channel))

    @staticmethod
    def retire(current: Sequence[Path], left: Sequence[Path]) -> None:
        used = [_collection(path, _read(path)) for path in current]
        for collection in used:
            if collection.exists() and collection.left() is not None:
                collection.leave(None)
        names, uris = {c.name for c in used}, {c.uri for c in used}
        now, grace = time.time(), _grace()
        for path in left:
            place = _read(path)
            # Another server may be gone; and two bundles may be copies of one.
            if _uri(path, place) not in uris or place.collection in names:
                continue
            collection = _collection(path, place)
            if collection.exists():
                since = collection.left()
                if since is None:
                    collection.leave(since := now)
                if now - since >= grace:
                    collection.drop()

    @staticmethod
    def drop(path: Path) -> None:
        _collection(path, _read(path)).drop()


class MilvusIndex:
    def __init__(self, collection: Collection, vectors: F32, ef: int) -> None:
        self._collection, self._vectors, self._ef = collection, vectors, ef

    def search(self, queries: F32, k: int, allowed: Bool | None = None) -> Answer:
        everything = f"row < {len(self._vectors)}"
        keys = Keys(everything, lambda rows: rows, lambda keys: keys)
        return find(self._collection, self._vectors, queries, k, allowed, self._ef, keys)

    def append(self, journal: int) -> Appended:
        return MilvusAppended(self._collection, self._vectors, self._ef, journal)


class MilvusAppended:
    """Keys are made of the journal's identity and the seq, not of the row: what stands under a key
    never changes. A process that is behind, and writes an older version of an item, does not undo
    what another wrote; and two journals on one collection do not meet.
    """

    def __init__(self, collection: Collection, vectors: F32, ef: int, journal: int) -> None:
        self._collection, self._vectors, self._ef = collection, vectors, ef
        self._first = journal << SEQ_BITS
        self._last = self._first
        self._keys: dict[int, int] = {}
        self._rows: dict[int, int] = {}

    def upsert(self, rows: I64, seqs: I64, vectors: F32) -> None:
        if not len(rows):
            return
        keys = seqs + self._first
        self._collection.upsert(keys, vectors)
        fresh = dict(zip(rows.tolist(), keys.tolist(), strict=True))
        before = {row: self._keys[row] for row in fresh if row in self._keys}
        self._forget([key for row, key in before.items() if key != fresh[row]])
        self._keys |= fresh
        self._rows |= {key: row for row, key in fresh.items()}
        self._last = max(self._last, int(keys.max()))

    def delete(self, rows: I64, seqs: I64) -> None:
        known = [row for row in rows.tolist() if row in self._keys]
        written = (seqs + self._first).tolist()
        self._forget(list({*(self._keys[row] for row in known), *written}))
        for row in known:
            del self._keys[row]

    def _forget(self, keys: list[int]) -> None:
        if keys:
            self._collection.delete(np.array(keys, np.int64))
            for key in keys:
                self._rows.pop(key, None)

    def search(self, queries: F32, k: int, allowed: Bool | None, appended: F32) -> Answer:
        matrix = Stacked(self._vectors, appended)
        everything = f"row < {len(self._vectors)}"
        if self._keys:
            everything = f"({everything} or (row > {self._first} and row <= {self._last}))"
        keys = Keys(everything, self._keys_of, self._rows_of)
        return find(self._collection, matrix, queries, k, allowed, self._ef, keys)

    def _keys_of(self, rows: I64) -> I64:
        """Without those of rows that were deleted: they are not there."""
        border = int(np.searchsorted(rows, len(self._vectors)))
        live = [self._keys[row] for row in rows[border:].tolist() if row in self._keys]
        return np.concatenate([rows[:border], np.array(live, np.int64)])

    def _rows_of(self, keys: I64) -> I64:
        """-1 for what this process does not know of, yet or any more."""
        rows = keys.copy()
        for place in np.argwhere(keys >= len(self._vectors)):
            rows[tuple(place)] = self._rows.get(int(keys[tuple(place)]), -1)
        return rows


class Keys(NamedTuple):
    """The keys of a collection that a search means."""

    everything: str
    """The expression for all of them."""
    of: Callable[[I64], I64]
    """Rows, ascending, -> their keys."""
    rows: Callable[[I64], I64]
    """Keys of any shape -> rows, -1 for a key that means none."""


def find(
    collection: Collection,
    vectors: Matrix,
    queries: F32,
    k: int,
    allowed: Bool | None,
    ef: int,
    keys: Keys,
) -> Answer:
    """The answer of `Index.search`; `vectors` are all rows that `keys` means."""
    queries = checked_queries(vectors, queries, k, allowed)
    if k > MOST_ANSWERS:
        return scan(vectors, queries, k, None if allowed is None else np.flatnonzero(allowed))
    ef = max(ef, k)

    def walk(widen: float, allowed: Bool | None) -> Answer:
        wide = min(round(ef * widen), MOST_EF)
        condition, fetch = keys.everything, k
        if allowed is not None:
            removed = np.flatnonzero(~allowed)
            if len(removed) <= LISTED:
                condition = _without(keys, removed)
                # What a user has seen or shut out lies nearest, and is met first.
                wide = min(wide + len(removed), MOST_EF)
            else:
                fetch = max(k, min(wide, MOST_ANSWERS))
        found, scores = collection.search(queries, fetch, max(wide, fetch), condition)
        rows = keys.rows(found)
        if allowed is not None:
            rows[~allowed[rows]] = -1
        scores[rows < 0] = -np.inf
        rows, scores = ordered(rows, scores)
        return rows[:, :k], scores[:, :k]

    return scan_or_walk(vectors, queries, k, allowed, ef * ROWS_PER_STEP, walk)


def _without(keys: Keys, removed: I64) -> str:
    listed = keys.of(removed).tolist()
    return f"{keys.everything} and row not in {listed}" if listed else keys.everything


def _read(path: Path) -> Place:
    try:
        return PLACE.validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc.errors()[0]["msg"]
        raise BundleError(
            f"{path}: not a readable reference to a Milvus collection ({why}); publish the bundle "
            "again"
        ) from exc


def _uri(path: Path, place: Place) -> str:
    if uri := os.environ.get("TANDEM_MILVUS_URI", "") or place.uri:
        _require_no_password(uri)
        return uri
    path = path.absolute()
    in_store = path.parent.parent.name == "bundles"
    return str((path.parents[2] if in_store else path.parent) / "milvus.db")


def _require_no_password(uri: str) -> None:
    """A URI stands in the bundle and in messages."""
    if "@" in uri:
        raise RecipeError(
            "the URI of Milvus holds a password; give it as TANDEM_MILVUS_TOKEN=user:password"
        )


def _collection(path: Path, place: Place) -> Collection:
    return Collection(_uri(path, place), place.collection)


def _grace() -> float:
    """Seconds."""
    text = os.environ.get("TANDEM_MILVUS_GRACE", "3600")
    try:
        return float(text)
    except ValueError as exc:
        raise SettingsError(f"TANDEM_MILVUS_GRACE is {text!r}, expected seconds") from exc
