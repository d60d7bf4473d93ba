from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataError
from offline.data.dataset import Dataset, Sequences, prepare, read_seq, windows
from offline.data.movielens import read_movielens
from offline.data.tables import Tables
from tests.places import shared_data


def tables(
    *interactions: tuple[str, str, int],
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
) -> Tables:
    frame = pl.DataFrame(
        interactions,
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64},
        orient="row",
    )
    return Tables(frame, items, users)


def histories(dataset: Dataset) -> dict[str, list[str]]:
    offsets, items, *_ = dataset.sequences
    return {
        user: [dataset.item_ids[row] for row in items[offsets[u] : offsets[u + 1]]]
        for u, user in enumerate(dataset.user_ids)
    }


@given(
    histories=st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=5).filter(
        any
    ),
    length=st.integers(1, 8),
    data=st.data(),
)
def test_windows_are_the_items_before_each_position(
    histories: list[list[int]], length: int, data: st.DataObject
) -> None:
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    flat = np.array([item for h in histories for item in h], np.int32)
    picked = [
        (user, data.draw(st.integers(0, len(history)))) for user, history in enumerate(histories)
    ]

    rows, mask, _ = windows(
        Sequences(offsets, flat, np.zeros(len(flat), np.int64), np.zeros(len(flat), np.uint8)),
        np.array([user for user, _ in picked]),
        np.array([offsets[user] + place for user, place in picked]),
        length,
    )

    for n, (user, place) in enumerate(picked):
        recent = histories[user][:place][-length:]
        padding = length - len(recent)
        assert rows[n].tolist() == [0] * padding + recent
        assert mask[n].tolist() == [False] * padding + [True] * len(recent)
    assert rows.dtype == np.int32


def test_sequences_go_by_time_and_equal_times_by_the_order_of_the_file() -> None:
    # Rows in another order than the file, so that a tie is not broken by them.
    items = pl.DataFrame({"item_id": ["tie-c", "tie-a", "tie-b"]})
    dataset = prepare(
        tables(
            ("u", "late", 30),
            ("v", "x", 5),
            ("u", "tie-b", 20),
            ("u", "tie-a", 20),
            ("u", "early", -10),
            ("u", "tie-c", 20),
            ("v", "early", 4),
            items=items,
        ),
        {},
        {},
        3,
    )

    assert histories(dataset) == {
        "u": ["early", "tie-b", "tie-a", "tie-c", "late"],
        "v": ["early", "x"],
    }
    assert dataset.sequences.offsets.dtype == np.int64
    assert dataset.sequences.items.dtype == np.int32


def test_rows_follow_the_tables_and_then_the_first_interaction() -> None:
    items = pl.DataFrame({"item_id": ["b", "cold", "a"], "year": [1990, 2000, None]})
    users = pl.DataFrame({"user_id": ["w", "u"]})

    dataset = prepare(
        tables(("v", "new", 1), ("u", "a", 2), ("v", "b", 3), items=items, users=users),
        {},
        {"year": "number"},
        3,
        seq=42,
    )

    assert dataset.item_ids == ["b", "cold", "a", "new"]
    assert dataset.user_ids == ["w", "u", "v"]
    assert histories(dataset) == {"w": [], "u": ["a"], "v": ["new", "b"]}
    assert dataset.items.numbers.tolist() == [[-1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert dataset.attributes.to_dict(as_series=False) == {"year": [1990, 2000, None, None]}
    assert dataset.counts().tolist() == [1, 0, 1, 1]
    assert dataset.seq == 42


def test_the_split_leaves_the_last_two_out_where_there_are_three() -> None:
    lengths = {"none": 0, "one": 1, "two": 2, "three": 3, "five": 5}
    users = pl.DataFrame({"user_id": list(lengths)})
    log = [(user, f"i{n}", n) for user, length in lengths.items() for n in range(length)]
    dataset = prepare(tables(*log, users=users), {}, {}, 3)

    split = dataset.split()

    assert dataset.sequences.offsets.tolist() == [0, 0, 1, 3, 6, 11]
    assert split.train_end.tolist() == [0, 1, 3, 4, 9]
    assert split.validation.tolist() == [-1, -1, -1, 4, 9]
    assert split.test.tolist() == [-1, -1, -1, 5, 10]
    trained = [True, True, True, True, False, False, True, True, True, False, False]
    assert dataset.before(split.train_end).tolist() == trained
    assert dataset.counts().tolist() == [4, 3, 2, 1, 1]
    assert dataset.counts(split.train_end).tolist() == [4, 2, 1, 0, 0]


def test_a_feature_that_the_table_does_not_have_is_named() -> None:
    items = pl.DataFrame({"item_id": ["a"], "year": [1990], "title": ["A"]})
    log = tables(("u", "a", 1), items=items)

    with pytest.raises(
        DataError, match=r"^items: the recipe names feature 'genre', the table has year, title; "
    ):
        prepare(log, {}, {"year": "number", "genre": "multi"}, 3)
    with pytest.raises(
        DataError, match=r"^users: the recipe names feature 'age', the table has no features; "
    ):
        prepare(log, {"age": "number"}, {}, 3)


def test_a_column_of_another_kind_names_the_table_and_the_feature() -> None:
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "image": [[1.0], [1.0, 2.0]]})
    log = tables(("u", "a", 1), items=items)

    with pytest.raises(
        DataError, match=r"^items: feature 'title': expected a number, found str 'A'"
    ):
        prepare(log, {}, {"title": "number"}, 3)
    with pytest.raises(
        DataError, match=r"^items: feature 'image': expected a list of 1 finite numbers"
    ):
        prepare(log, {}, {"image": "vector"}, 3)


def test_the_journal_position_of_exported_tables_is_read(tmp_path: Path) -> None:
    assert read_seq(tmp_path) == 0

    (tmp_path / "journal.json").write_text('{"seq": 17}')

    assert read_seq(tmp_path) == 17


@pytest.fixture(scope="module")
def ml_100k() -> Path:
    return shared_data("ml-100k")


def test_movielens_100k_is_prepared_whole(ml_100k: Path) -> None:
    dataset = prepare(
        read_movielens("ml-100k", ml_100k),
        {"age": "number", "gender": "category", "occupation": "category"},
        {"genres": "multi", "year": "number", "title": "text"},
        50,
    )

    assert (len(dataset.user_ids), len(dataset.item_ids)) == (943, 1682)
    assert len(dataset.sequences.items) == 100_000
    assert dataset.counts().tolist()[49] == 583  # Star Wars, the most rated of all
    assert dataset.item_ids[49] == "50"
    assert int(dataset.counts().argmax()) == 49
    assert np.diff(dataset.sequences.offsets).min() == 20
    assert (dataset.split().test >= 0).all()
    # The first user is a man, and a technician, which is the twelfth occupation by frequency.
    assert dataset.users.codes[0].tolist() == [1, 12]
    genres = dataset.schema.items.blocks[0]
    assert (genres.width, genres.size) == (6, 20)
    # One film is named "unknown" and has no year.
    assert np.flatnonzero(dataset.items.numbers[:, 1] == 0).tolist() == [266]
