"""The three input tables: read, checked and written.

A directory holds `interactions` (user_id, item_id, timestamp; optional weight and kind), and may
hold `items` (item_id + features; optional available and deleted) and `users` (user_id + features),
each as Parquet or as CSV with a header.

- Ids are integers or strings in the file and strings afterwards; a CSV keeps them as written
  (`007`).
- A timestamp is a number of seconds (fractions are cut) or a date and time, UTC where no zone is
  given; afterwards it is int64, in seconds since 1970.
- An empty CSV cell is a missing value. A feature column of a CSV is int64 if every value is an
  integer, float64 if every value is a number, a string otherwise (`02460` is a string, not 2460).
- `available` and `deleted` are booleans, in a CSV `true` and `false`; a missing one is the usual
  case, available and not deleted. A missing `kind` is not known.
- CSV has no lists: a feature with several values is a string with `|` between them, kept as it is
  here; the feature encoder splits it. Parquet may hold lists.
"""

import csv
import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import polars as pl

from contract.errors import DataError

FORMATS = ("parquet", "csv")
STATES = ("available", "deleted")
ID_COLUMNS = frozenset({"user_id", "item_id"})


@dataclass(frozen=True, eq=False)
class Tables:
    """`interactions` is in file order: user_id str, item_id str, timestamp int64 and, where given,
    weight float32 (finite, >= 0) and kind str. `items` and `users` have one row per id, which is a
    string; `available` and `deleted` of `items` are Boolean."""

    interactions: pl.DataFrame
    items: pl.DataFrame | None
    users: pl.DataFrame | None
    integer_ids: frozenset[str] = frozenset()
    """The id columns that are integers in the interactions file, so that they can be written as
    such again."""


def read_tables(directory: Path) -> Tables:
    """Raises DataError naming the file, the column and the first bad row, counted from 1."""
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; give one that holds interactions.parquet")
    path = _find(directory, "interactions")
    if path is None:
        names = " or ".join(f"interactions.{format_}" for format_ in FORMATS)
        raise DataError(f"{directory}: found neither {names}; interactions are required")
    interactions = _read(path)
    return Tables(
        check_interactions(interactions, path),
        _read_entities(directory, "items", "item_id"),
        _read_entities(directory, "users", "user_id"),
        frozenset(n for n, kind in interactions.schema.items() if kind.is_integer()) & ID_COLUMNS,
    )


def write_tables(tables: Tables, directory: Path) -> None:
    """Writes Parquet, each file whole or not at all; removes the file of a table that is None."""
    directory.mkdir(parents=True, exist_ok=True)
    frames = {"interactions": tables.interactions, "items": tables.items, "users": tables.users}
    for name in frames:
        other = directory / f"{name}.csv"
        if other.exists():
            raise DataError(f"{other}: in the way of {name}.parquet; remove it or write elsewhere")
    for name, frame in frames.items():
        path = directory / f"{name}.parquet"
        if frame is None:
            path.unlink(missing_ok=True)
            continue
        unfinished = path.with_suffix(".parquet.tmp")
        frame.write_parquet(unfinished)
        os.replace(unfinished, path)


def check_interactions(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Cast to the types of `Tables` and refuse what cannot be; other columns are left out.

    `path` is where the frame came from, for the messages of DataError.
    """
    _require(frame, ("user_id", "item_id", "timestamp"), path)
    if frame.is_empty():
        raise DataError(f"{path}: no interactions in it; at least one row is needed")
    columns = {
        "user_id": _ids(frame["user_id"], path),
        "item_id": _ids(frame["item_id"], path),
        "timestamp": _seconds(frame["timestamp"], path),
    }
    if "weight" in frame.columns:
        columns["weight"] = _weights(frame["weight"], path)
    if "kind" in frame.columns:
        columns["kind"] = _kinds(frame["kind"], path)
    return pl.DataFrame(columns)


def check_entities(frame: pl.DataFrame, key: str, path: Path) -> pl.DataFrame:
    """The table of items or users with `key` first, as strings, each id once; else DataError."""
    _require(frame, (key,), path)
    ids = _ids(frame[key], path)
    repeated = (~ids.is_first_distinct()).arg_true()
    if len(repeated):
        second = repeated[0]
        first = ids.index_of(ids[second])
        raise DataError(
            f"{_place(path, second)}: {key} {ids[second]!r} was already in row {(first or 0) + 1}; "
            "keep one row per id"
        )
    return frame.select(ids, pl.exclude(key))


def _read_entities(directory: Path, name: str, key: str) -> pl.DataFrame | None:
    path = _find(directory, name)
    if path is None:
        return None
    frame = check_entities(_read(path), key, path)
    return frame.with_columns(
        _booleans(frame[column], path) for column in STATES if name == "items" and column in frame
    )


def _find(directory: Path, name: str) -> Path | None:
    paths = [directory / f"{name}.{format_}" for format_ in FORMATS]
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise DataError(f"{directory}: found both {names}; keep the one that is meant")
    return found[0] if found else None


def _read(path: Path) -> pl.DataFrame:
    try:
        # A directory or file name may hold * or [: it is a name here, never a pattern.
        if path.suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        frame = pl.read_csv(path, infer_schema=False, glob=False)
    # Polars panics on some damaged Parquet files, and a panic is no Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if path.suffix == ".csv":
            _refuse_ragged(path)
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: cannot be read ({reason}); write the file again") from error
    # Polars fills a short line with nulls, so only a null at the end can hide one.
    if frame[:, -1].null_count():
        _refuse_ragged(path)
    return frame.select(_typed(column) for column in frame)


def _refuse_ragged(path: Path) -> None:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = csv.reader(file)
        try:
            width = len(next(lines, []))
            for line in lines:
                if line and len(line) != width:
                    raise DataError(
                        f"{path}, line {lines.line_num}: {len(line)} fields, but the header has "
                        f"{width}; quote a value that contains a comma"
                    )
        except csv.Error as error:
            raise DataError(f"{path}, line {lines.line_num}: {error}; correct the line") from error


def _typed(column: pl.Series) -> pl.Series:
    if column.name in ("user_id", "item_id", "timestamp") or column.null_count() == len(column):
        return column
    # 02460 is a code, and as a number it would come back as another one.
    if column.str.contains(r"^[+-]?0\d").any():
        return column
    for dtype in (pl.Int64(), pl.Float64()):
        numbers = column.cast(dtype, strict=False)
        if numbers.null_count() == column.null_count():
            return numbers
    return column


def _require(frame: pl.DataFrame, names: tuple[str, ...], path: Path) -> None:
    for name in names:
        if name not in frame.columns:
            near = difflib.get_close_matches(name, frame.columns, n=1)
            advice = f"rename {near[0]!r}" if near else "add it"
            raise DataError(f"{path}: no column {name!r} among {frame.columns}; {advice}")


def _ids(column: pl.Series, path: Path) -> pl.Series:
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise DataError(
            f"{path}: column {column.name!r} is {column.dtype}; ids must be integers or strings"
        )
    ids = column.cast(pl.String)
    empty = ids.is_null() | (ids == "").fill_null(True)
    if empty.any():
        _refuse(column, empty, path, "an id that is not empty")
    return ids


def _seconds(column: pl.Series, path: Path) -> pl.Series:
    if column.dtype == pl.String:
        seconds = _parsed_seconds(column)
    elif column.dtype.is_numeric():
        seconds = _whole(column)
    elif column.dtype in (pl.Datetime, pl.Date):
        seconds = column.dt.epoch("s").cast(pl.Int64)
    else:
        raise DataError(
            f"{path}: column {column.name!r} is {column.dtype}; a timestamp must be a number of "
            "seconds or a date and time"
        )
    if seconds.null_count():
        _refuse(column, seconds.is_null(), path, "seconds since 1970 or a date and time")
    return seconds


def _whole(column: pl.Series) -> pl.Series:
    return column.floor().cast(pl.Int64, strict=False)


def _parsed_seconds(column: pl.Series) -> pl.Series:
    text = column.str.strip_chars()
    seconds = text.cast(pl.Int64, strict=False)
    for read in (_fractions, _zoned_dates, _plain_dates):
        # Trying numbers as dates costs seconds per million: only what is left is tried.
        left = text.set(seconds.is_not_null(), None)
        if left.null_count() == len(left):
            break
        seconds = seconds.zip_with(seconds.is_not_null(), read(left))
    return seconds


def _fractions(text: pl.Series) -> pl.Series:
    return _whole(text.cast(pl.Float64, strict=False))


def _zoned_dates(text: pl.Series) -> pl.Series:
    iso = text.str.replace(" ", "T", literal=True)
    form = "%Y-%m-%dT%H:%M:%S%.f%#z"
    return iso.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False).dt.epoch("s")


def _plain_dates(text: pl.Series) -> pl.Series:
    # As an expression, because the method of a series raises where no value looks like a date.
    date = pl.col(text.name).str.to_datetime(time_unit="us", strict=False)
    return text.to_frame().select(date.dt.epoch("s")).to_series()


def _weights(column: pl.Series, path: Path) -> pl.Series:
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        raise DataError(f"{path}: column 'weight' is {column.dtype}; weights must be numbers")
    weights = column.cast(pl.Float32, strict=False)
    good = (weights.is_finite() & (weights >= 0)).fill_null(False)
    if not good.all():
        _refuse(column, ~good, path, "a finite number, 0 or more")
    return weights


def _kinds(column: pl.Series, path: Path) -> pl.Series:
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise DataError(f"{path}: column 'kind' is {column.dtype}; kinds must be strings")
    return column.cast(pl.String)


def _booleans(column: pl.Series, path: Path) -> pl.Series:
    if column.dtype in (pl.Boolean, pl.Null):
        return column.cast(pl.Boolean)
    if column.dtype != pl.String:
        raise DataError(
            f"{path}: column {column.name!r} is {column.dtype}; it says whether an item is "
            f"{column.name}, as a boolean; rename it if it means something else"
        )
    words = {"true": True, "false": False}
    found = column.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    wrong = found.is_null() & column.is_not_null()
    if wrong.any():
        _refuse(column, wrong, path, "true or false")
    return found


def _refuse(column: pl.Series, bad: pl.Series, path: Path, expected: str) -> NoReturn:
    row = bad.arg_true()[0]
    found = "no value" if column[row] is None else repr(column[row])
    raise DataError(
        f"{_place(path, row)}: {column.name} has {found}, expected {expected}; correct or drop it"
    )


def _place(path: Path, row: int) -> str:
    """`row` counts from 0; the reader of the message counts from 1, a CSV's header as line 1."""
    line = f" (line {row + 2})" if path.suffix == ".csv" else ""
    return f"{path}, row {row + 1}{line}"
