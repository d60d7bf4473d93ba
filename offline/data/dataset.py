"""The tables, prepared for training: every interaction is kept once, as a row number.

A sequence is a slice of one flat array, so a training sample is two integers (user, position) and
its history window is gathered per batch by index arithmetic. Nothing is written out per sample.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from contract.arrays import I32, I64, U8, Bool
from contract.bundle import ItemState
from contract.errors import DataError, FeatureError
from contract.features import KINDS, Encoded, Fields, Kind, Schema
from contract.kinds import HISTORY, Histories, Kinds, history_of
from offline.data.tables import STATES, Tables

SEQ_FILE = "journal.json"


class Sequences(NamedTuple):
    """The items of user u in order of time: items[offsets[u] : offsets[u + 1]], rows as int32, when
    each was touched, in seconds since 1970, and which of the schema's histories it belongs to."""

    offsets: I64
    items: I32
    times: I64
    kinds: U8

    def keep(self, kept: Bool) -> "Sequences":
        """Those among all items for which `kept` holds."""
        before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        offsets = before[self.offsets]
        return Sequences(offsets, self.items[kept], self.times[kept], self.kinds[kept])


class Touched(NamedTuple):
    """All that user u touched in order of time: items[offsets[u] : offsets[u + 1]], each with its
    flags (see contract.kinds)."""

    offsets: I64
    items: I32
    flags: U8
    times: I64

    def history(self) -> Sequences:
        """What counts as history."""
        kept = self.flags & HISTORY != 0
        whole = Sequences(self.offsets, self.items, self.times, history_of(self.flags))
        return whole if kept.all() else whole.keep(kept)


class Split(NamedTuple):
    """Leave one out: per user, train positions are offsets[u] .. train_end[u] (exclusive), the next
    one is the validation target, the last one the test target; -1 where a user has fewer than three
    interactions, all of which are then training."""

    train_end: I64
    validation: I64
    test: I64


@dataclass(frozen=True)
class Dataset:
    """Row n of `items` and of `item_ids` is one item, row n of `users` and `user_ids` one user."""

    item_ids: list[str]
    user_ids: list[str]
    items: Encoded
    users: Encoded
    touched: Touched
    sequences: Sequences
    """Those of `touched` that count as history: what is trained on."""
    schema: Schema
    attributes: pl.DataFrame
    """The raw feature columns of the items table, in row order, for display."""

    states: U8
    """(N,) the ItemState of each item."""

    seq: int
    """The last journal entry that these tables include; 0 when they were not exported from one."""

    integer_ids: frozenset[str] = frozenset()
    """As in `Tables`."""

    def split(self) -> Split:
        begin, end = self.sequences.offsets[:-1], self.sequences.offsets[1:]
        enough = end - begin >= 3
        return Split(
            train_end=np.where(enough, end - 2, end),
            validation=np.where(enough, end - 2, -1),
            test=np.where(enough, end - 1, -1),
        )

    def counts(self, until: I64 | None = None) -> I64:
        """Interactions per item (N,), counted up to position `until[u]` of each user's sequence."""
        items = self.sequences.items if until is None else self.sequences.items[self.before(until)]
        return np.bincount(items, minlength=len(self.item_ids))

    def before(self, until: I64) -> Bool:
        """Mask over all positions: those of user u that lie before `until[u]`."""
        lengths = np.diff(self.sequences.offsets)
        return np.arange(len(self.sequences.items)) < np.repeat(until, lengths)


class Windows(NamedTuple):
    """Left-padded: the last column is always the most recent item."""

    rows: I32  # (B, L)
    mask: Bool  # (B, L) which are real
    kinds: U8  # (B, L)


def windows(sequences: Sequences, users: I64, positions: I64, length: int) -> Windows:
    """The `length` items before each position."""
    at = positions[:, None] + np.arange(-length, 0)
    mask = at >= sequences.offsets[users][:, None]
    at = np.maximum(at, 0)
    return Windows(np.where(mask, sequences.items[at], 0), mask, sequences.kinds[at])


def prepare(
    tables: Tables,
    user_features: Mapping[str, Kind],
    item_features: Mapping[str, Kind],
    history_length: int,
    seq: int = 0,
    kinds: Kinds = Kinds(),  # noqa: B008
    histories: Histories = (),
) -> Dataset:
    """Number the items and users, order the interactions, fit and apply the feature encoder.

    Items and users that stand in their table come first, in its order, then those that only occur
    in the interactions. Interactions are ordered by (user, timestamp, position in the file).
    """
    items = _catalogue(tables.items, tables.interactions, "item_id")
    users = _catalogue(tables.users, tables.interactions, "user_id")
    item_fields, item_codes = _fit("items", items, item_features)
    user_fields, user_codes = _fit("users", users, user_features)
    flags = _flags(tables.interactions, kinds, histories)
    touched = _touched(tables.interactions, users, items, flags)
    return Dataset(
        item_ids=items["item_id"].to_list(),
        user_ids=users["user_id"].to_list(),
        items=item_codes,
        users=user_codes,
        touched=touched,
        sequences=touched.history(),
        schema=Schema(
            users=user_fields,
            items=item_fields,
            history_length=history_length,
            histories=histories,
        ),
        attributes=items.drop("item_id", *STATES, strict=False),
        states=_states(items),
        seq=seq,
        integer_ids=tables.integer_ids,
    )


def read_seq(directory: Path) -> int:
    """The journal position that exported tables include, 0 for tables from elsewhere."""
    path = directory / SEQ_FILE
    return int(json.loads(path.read_text())["seq"]) if path.exists() else 0


def _catalogue(table: pl.DataFrame | None, interactions: pl.DataFrame, key: str) -> pl.DataFrame:
    seen = interactions.select(pl.col(key).unique(maintain_order=True))
    if table is None:
        return seen
    return pl.concat([table, seen.join(table, on=key, how="anti")], how="diagonal")


def _fit(side: str, table: pl.DataFrame, features: Mapping[str, Kind]) -> tuple[Fields, Encoded]:
    for name in features:
        if name not in table.columns:
            known = ", ".join(table.columns[1:]) or "no features"
            raise DataError(
                f"{side}: the recipe names feature '{name}', the table has {known}; "
                "change [features] in the recipe or the table"
            )
    columns = {name: table[name].to_list() for name in features}
    try:
        fields = tuple(KINDS[kind].fit(name, columns[name]) for name, kind in features.items())
        fitted = Fields(fields=fields)
        return fitted, fitted.encode_columns(columns, len(table))
    except FeatureError as error:
        raise DataError(f"{side}: {error}; give it another kind in the recipe") from error


def _states(items: pl.DataFrame) -> U8:
    states = np.full(len(items), ItemState.AVAILABLE, np.uint8)
    if "available" in items.columns:
        states[~items["available"].fill_null(True).to_numpy()] = ItemState.UNAVAILABLE
    if "deleted" in items.columns:
        states[items["deleted"].fill_null(False).to_numpy()] = ItemState.DELETED
    return states


def _touched(
    interactions: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame, flags: pl.Expr
) -> Touched:
    ordered = (
        interactions.lazy()
        .select("user_id", "item_id", "timestamp", flags=flags)
        .with_row_index("position")
        .join(users.lazy().select("user_id").with_row_index("user"), on="user_id")
        .join(items.lazy().select("item_id").with_row_index("item"), on="item_id")
        .sort("user", "timestamp", "position")
        .select("user", pl.col("item").cast(pl.Int32), "flags", "timestamp")
        .filter(pl.col("flags") > 0)
        .collect()
    )
    lengths = np.bincount(ordered["user"].to_numpy(), minlength=len(users))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    columns = (ordered[name].to_numpy() for name in ("item", "flags", "timestamp"))
    return Touched(offsets, *columns)


def _flags(interactions: pl.DataFrame, kinds: Kinds, histories: Histories) -> pl.Expr:
    """Of each interaction. Raises DataError where none is of a kind that `histories` names."""
    found = []
    if "kind" in interactions.columns:
        found = interactions["kind"].drop_nulls().unique().to_list()
    for kind in histories:
        if kind not in found:
            raise DataError(
                f"interactions: none is of kind '{kind}', which has a history in the recipe; known "
                f"are {', '.join(sorted(found)) or 'none'}; change histories in the recipe"
            )
    unknown = kinds.flags(None)
    if not found:
        return pl.lit(unknown, pl.UInt8)
    flags = {kind: kinds.flags(kind, histories) for kind in found}
    return pl.col("kind").replace_strict(flags, default=unknown, return_dtype=pl.UInt8)
