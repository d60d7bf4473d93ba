"""What came in online, as tables to train on: alone, or merged with those that were there."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from polars.datatypes import DataType, DataTypeClass

from contract.changes import Changes, fold
from contract.errors import DataError
from contract.files import sync
from contract.journal import Journal
from offline.data.dataset import SEQ_FILE, read_seq
from offline.data.tables import STATES, Tables, read_tables, write_tables

EVENTS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "kind": pl.String}


def export(journal: Journal, out: Path, data: Path | None = None) -> Changes:
    """Write the directory `out`, all at once: the tables in `data`, if there are any, with all that
    the journal holds and they lack, and the journal position that they now include.

    Raises DataError when `out` is there already or nothing is to be written, JournalError when the
    journal was trimmed of what the tables lack.
    """
    if out.exists():
        raise DataError(f"{out}: is there already; export to another directory")
    changes = fold(journal, read_seq(data) if data else _start(journal))
    tables = merged(read_tables(data) if data else None, changes)
    if tables.interactions.is_empty():
        raise DataError("the journal holds no events yet, and no tables were given (--data)")
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        write_tables(tables, staged)
        (staged / SEQ_FILE).write_text(json.dumps({"seq": changes.seq}))
        for path in (*staged.iterdir(), staged):
            sync(path)
        staged.chmod(0o755)
        staged.rename(out)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return changes


def merged(base: Tables | None, changes: Changes) -> Tables:
    """Events are appended. A posted item replaces its row, all of it; a deleted one is marked, and
    left out where no one has touched it. Of an event's item that neither the tables nor the journal
    describe, as much is known as of a deleted one: it is not to be recommended."""
    interactions = _interactions(base, changes)
    known = set(base.interactions["item_id"]) if base else set[str]()
    known |= set(base.items["item_id"]) if base and base.items is not None else set()
    described = known | changes.items.keys()
    strangers = {e.item_id for e in changes.events} - described if base else set[str]()
    gone = sorted(changes.deleted | strangers)
    items = _items(base.items if base else None, changes, gone)
    if items is not None:
        touched = interactions["item_id"].unique()
        there = ~pl.col("deleted").fill_null(False) | pl.col("item_id").is_in(touched.implode())
        items = items.filter(there)
    tables = Tables(interactions, items, base.users if base else None)
    return _with_integers(tables, base.integer_ids) if base else tables


def _interactions(base: Tables | None, changes: Changes) -> pl.DataFrame:
    events = pl.DataFrame(changes.events, schema=EVENTS, orient="row")
    if base is None:
        return events
    if "weight" in base.interactions.columns:
        events = events.with_columns(weight=pl.lit(1.0, pl.Float32))
    return pl.concat([base.interactions, events], how="diagonal")


def _items(base: pl.DataFrame | None, changes: Changes, gone: Sequence[str]) -> pl.DataFrame | None:
    if not changes.items and not gone:
        return base
    left = base if base is not None else pl.DataFrame(schema={"item_id": pl.String})
    left = left.filter(~pl.col("item_id").is_in(list(changes.items)))
    posted = [
        {**posted.features, "item_id": item_id, "available": posted.available, "deleted": None}
        for item_id, posted in changes.items.items()
    ]
    bare = sorted(set(gone) - set(left["item_id"]) - changes.items.keys())
    rows = [*posted, *({"item_id": item_id} for item_id in bare)]
    names = list(dict.fromkeys([*left.columns, *STATES, *(name for row in rows for name in row)]))
    columns = [
        _column(name, left[name] if name in left.columns else None, len(left), rows)
        for name in names
    ]
    items = pl.DataFrame(columns)
    deleted = pl.col("item_id").is_in(list(gone)) | pl.col("deleted").fill_null(False)
    return items.with_columns(deleted=deleted)


def _column(
    name: str, base: pl.Series | None, height: int, rows: Sequence[Mapping[str, Any]]
) -> pl.Series:
    """A column of the items table with the values of posted items below, in a type for both: JSON
    does not tell 1 from 1.0, and the encoder takes a list or a string with `|` for the same. What
    is nested deeper than a list becomes text, in JSON."""
    above = base if base is not None else pl.Series(name, [None] * height, dtype=pl.Null)
    values = [row.get(name) for row in rows]
    if _is_deep(above.dtype) and any(value is not None for value in values):
        above = pl.Series(name, [_shallow(value) for value in above.to_list()], dtype=pl.String)
        values = [_shallow(value) for value in values]
    if isinstance(above.dtype, pl.List) or any(isinstance(value, list) for value in values):
        values = [_parts(value) for value in values]
        if not above.dtype.is_nested():
            above = pl.Series(name, [_parts(value) for value in above.to_list()])
        inner = above.dtype.inner if isinstance(above.dtype, pl.List) else pl.Null
        parts = [part for value in values for part in value or ()]
        dtype: DataType | DataTypeClass = pl.List(_type(inner, parts))
    else:
        values = [_shallow(value) for value in values]
        dtype = _type(above.dtype, values)
    return pl.concat([above.cast(dtype), pl.Series(name, values, dtype=dtype, strict=False)])


def _is_deep(dtype: DataType) -> bool:
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    return isinstance(dtype, pl.Struct) or (inner is not None and inner.is_nested())


def _parts(value: Any) -> list[Any] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.split("|")
    return [_shallow(part) for part in (value if isinstance(value, list) else [value])]


def _shallow(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else value


def _type(base: DataType | DataTypeClass, values: Iterable[Any]) -> DataType | DataTypeClass:
    """One that holds what is of type `base` and these numbers and strings."""
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return base
    if kinds == {bool} and base in (pl.Boolean, pl.Null):
        return pl.Boolean
    if str in kinds or not (base.is_numeric() or base == pl.Null):
        return pl.String
    return pl.Float64 if float in kinds or base.is_float() else pl.Int64


def _with_integers(tables: Tables, columns: Iterable[str]) -> Tables:
    """Ids that were integers in the files are so again, unless one that came online is not."""
    frames = {"interactions": tables.interactions, "items": tables.items, "users": tables.users}
    for column in columns:
        holding = {n: f for n, f in frames.items() if f is not None and column in f.columns}
        if all(_are_integers(frame[column]) for frame in holding.values()):
            frames |= {n: f.cast({column: pl.Int64}) for n, f in holding.items()}
    interactions, items, users = frames.values()
    assert interactions is not None
    return Tables(interactions, items, users, tables.integer_ids)


def _are_integers(ids: pl.Series) -> bool:
    """007 is not 7."""
    return bool((ids.cast(pl.Int64, strict=False).cast(pl.String) == ids).fill_null(False).all())


def _start(journal: Journal) -> int:
    """The position before the first entry that is still there."""
    first = journal.read(0, limit=1)
    return first[0].seq - 1 if first else journal.last_seq()
