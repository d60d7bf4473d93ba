import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataError
from contract.ids import UNKNOWN, Ids, Texts


@given(st.lists(st.text(min_size=1), unique=True), st.text())
def test_every_id_finds_its_row_and_every_row_its_id(ids: list[str], other: str) -> None:
    found = Ids.of(ids)

    assert len(found) == len(ids)
    assert [found[row] for row in range(len(ids))] == ids
    assert [found.row(external) for external in ids] == list(range(len(ids)))
    assert found.row(other) == (ids.index(other) if other in ids else UNKNOWN)


@given(st.lists(st.text()))
def test_texts_give_back_what_they_were_given(strings: list[str]) -> None:
    texts = Texts.of(strings)

    assert [texts[row] for row in range(len(texts))] == strings
    assert [texts.raw(row) for row in range(len(texts))] == [s.encode() for s in strings]


@given(st.lists(st.text(st.characters(exclude_categories=["C"])), min_size=1), st.data())
def test_the_bytes_of_rows_are_those_of_the_texts(strings: list[str], data: st.DataObject) -> None:
    strings = [*strings, "one that is there"]
    texts = Texts.of(strings)
    rows = data.draw(st.lists(st.integers(0, len(strings) - 1)))

    assert texts.quoted(rows) == [strings[row].encode() for row in rows]
    assert [bytes(text) for text in texts.slices(rows)] == texts.quoted(rows)


def test_ids_beyond_ascii_are_found_by_their_exact_form() -> None:
    ids = Ids.of(["Amélie", "千と千尋", "🎬", "e\u0301"])

    assert ids.row("千と千尋") == 1
    assert ids.row("🎬") == 2
    assert ids.row("e\u0301") == 3
    assert ids.row("\u00e9") == UNKNOWN
    assert ids.of_rows([2, 0]) == ["🎬", "Amélie"]


def test_ids_whose_hashes_collide_are_told_apart_by_their_text() -> None:
    digest = Ids.of(["b"]).hashes[0]
    ids = Ids(
        Texts.of(["a", "b", "c"]),
        np.array([digest - 1, digest, digest], np.uint64),
        np.array([1, 2, 1], np.int64),
    )
    alone = Ids(Texts.of(["a"]), np.array([digest], np.uint64), np.array([0], np.int64))

    assert ids.row("b") == 1
    assert alone.row("b") == UNKNOWN


def test_a_request_may_ask_for_an_id_that_is_no_legal_text() -> None:
    assert Ids.of(["a"]).row("\ud800") == UNKNOWN


def test_an_id_that_stands_twice_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"id 'b' stands 3 times; ids must be unique"):
        Ids.of(["a", "b", "c", "b", "b"])


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(DataError, match="an id is empty"):
        Ids.of(["a", ""])


def test_arrays_are_of_the_types_that_a_bundle_stores() -> None:
    ids = Ids.of(["x", "yy"])

    assert ids.texts.text.tobytes() == b"xyy"
    assert ids.texts.offsets.tolist() == [0, 1, 3]
    arrays = (ids.texts.text, ids.texts.offsets, ids.hashes, ids.rows)
    assert [array.dtype.name for array in arrays] == ["uint8", "int64", "uint64", "int64"]
    assert ids.hashes[0] < ids.hashes[1]


def test_the_hash_of_an_id_never_changes() -> None:
    # Published bundles hold these numbers: another hash would find none of their ids.
    assert Ids.of(["item-1"]).hashes.tolist() == [8406168460641299428]
