from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from contract.errors import DataError
from offline.data.tables import Tables, read_tables, write_tables

GOOD = "user_id,item_id,timestamp\n1,a,10\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "interactions.csv").write_text(GOOD)
    return tmp_path


def interactions(path: Path, csv: str) -> pl.DataFrame:
    (path / "interactions.csv").write_text(csv)
    return read_tables(path).interactions


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_tables(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path}/", "")


def test_csv_keeps_order_and_ids_as_written_and_leaves_other_columns_out(tmp_path: Path) -> None:
    frame = interactions(tmp_path, "app,timestamp,item_id,user_id\nphone,20,007,2\ntv,10,x,01\n")

    assert frame.to_dict(as_series=False) == {
        "user_id": ["2", "01"],
        "item_id": ["007", "x"],
        "timestamp": [20, 10],
    }
    assert frame.dtypes == [pl.String, pl.String, pl.Int64]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("881250949", 881250949),
        ("881250949.9", 881250949),
        ("2024-01-01", 1704067200),
        ("2024-01-01 00:00:01", 1704067201),
        ("2024-01-01T00:00:01.5Z", 1704067201),
        ("2024-01-01T02:00:00+02:00", 1704067200),
    ],
)
def test_a_timestamp_in_csv_becomes_whole_seconds(
    tmp_path: Path, written: str, seconds: int
) -> None:
    frame = interactions(tmp_path, f"user_id,item_id,timestamp\n1,a,{written}\n")

    assert frame["timestamp"].to_list() == [seconds]


@pytest.mark.parametrize(
    ("timestamps", "seconds"),
    [
        (pl.Series([3], dtype=pl.Int32), 3),
        (pl.Series([3.99]), 3),
        (pl.Series([datetime(2024, 1, 1)]).cast(pl.Datetime("ns")), 1704067200),
        (pl.Series([datetime(2024, 1, 1, tzinfo=UTC)]), 1704067200),
        (pl.Series([datetime(2024, 1, 1)]).cast(pl.Date), 1704067200),
    ],
)
def test_a_timestamp_in_parquet_becomes_whole_seconds(
    tmp_path: Path, timestamps: pl.Series, seconds: int
) -> None:
    frame = pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": timestamps})
    frame.write_parquet(tmp_path / "interactions.parquet")

    read = read_tables(tmp_path).interactions

    assert read.to_dict(as_series=False) == {
        "user_id": ["1"],
        "item_id": ["2"],
        "timestamp": [seconds],
    }
    assert read.schema["timestamp"] == pl.Int64


def test_a_weight_is_float32(tmp_path: Path) -> None:
    frame = interactions(tmp_path, "user_id,item_id,timestamp,weight\n1,a,10,0\n1,b,11,2.5\n")

    assert frame["weight"].to_list() == [0.0, 2.5]
    assert frame.schema["weight"] == pl.Float32


def test_a_csv_feature_is_a_number_only_if_all_its_values_are_and_read_back_the_same(
    directory: Path,
) -> None:
    (directory / "items.csv").write_text(
        "year,item_id,price,zip,tags,note\n1999,1,1.5,02460,a|b,\n,2,2,55455,,\n"
    )

    items = read_tables(directory).items

    assert items is not None
    assert items.to_dict(as_series=False) == {
        "item_id": ["1", "2"],
        "year": [1999, None],
        "price": [1.5, 2.0],
        "zip": ["02460", "55455"],
        "tags": ["a|b", None],
        "note": [None, None],
    }


def test_items_and_users_may_be_absent_and_an_interaction_may_name_an_unknown_item(
    directory: Path,
) -> None:
    (directory / "items.csv").write_text("item_id\nz\n")

    tables = read_tables(directory)

    assert tables.users is None
    assert tables.items is not None
    assert tables.items["item_id"].to_list() == ["z"]
    assert tables.interactions["item_id"].to_list() == ["a"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    interactions = pl.DataFrame(
        {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [2, 1], "weight": [1, 0]},
        schema_overrides={"weight": pl.Float32},
    )
    items = pl.DataFrame({"item_id": ["a"], "tags": [["x", "y"]], "price": [1.25]})
    users = pl.DataFrame({"user_id": ["u"], "age": [30]})

    write_tables(Tables(interactions, items, users), tmp_path / "new" / "data")
    read = read_tables(tmp_path / "new" / "data")

    assert_frame_equal(read.interactions, interactions)
    assert read.items is not None
    assert_frame_equal(read.items, items)
    assert read.users is not None
    assert_frame_equal(read.users, users)
    names = sorted(path.name for path in (tmp_path / "new" / "data").iterdir())
    assert names == ["interactions.parquet", "items.parquet", "users.parquet"]


def test_writing_removes_the_table_that_is_no_longer_there(directory: Path) -> None:
    tables = read_tables(directory)
    items = pl.DataFrame({"item_id": ["a"]})
    out = directory / "out"
    write_tables(Tables(tables.interactions, items, None), out)
    assert (out / "items.parquet").exists()

    write_tables(Tables(tables.interactions, None, None), out)

    assert read_tables(out).items is None


def test_writing_beside_a_csv_of_the_same_name_is_refused_and_writes_nothing(
    directory: Path,
) -> None:
    tables = read_tables(directory)

    with pytest.raises(DataError, match=r"interactions\.csv: in the way"):
        write_tables(tables, directory)

    assert [path.name for path in directory.iterdir()] == ["interactions.csv"]


def test_a_missing_directory_or_interactions_file_is_named(tmp_path: Path) -> None:
    assert "nowhere: no such directory" in refusal(tmp_path / "nowhere")
    assert "found neither interactions.parquet or interactions.csv" in refusal(tmp_path)


def test_two_formats_of_one_table_are_refused(directory: Path) -> None:
    pl.DataFrame({"item_id": ["a"]}).write_parquet(directory / "items.parquet")
    (directory / "items.csv").write_text("item_id\na\n")

    assert "found both items.parquet and items.csv" in refusal(directory)


@pytest.mark.parametrize(
    ("csv", "parts"),
    [
        ("user_id,itemid,timestamp\n1,a,1\n", ["no column 'item_id'", "rename 'itemid'"]),
        ("user_id,item_id,when\n1,a,1\n", ["'timestamp'", "['user_id', 'item_id', 'when']"]),
        ("user_id,item_id,timestamp\n", ["no interactions in it"]),
        ("", ["interactions.csv: cannot be read (empty CSV)"]),
        (GOOD + "1,,11\n", ["row 2 (line 3): item_id has no value"]),
        (GOOD + '"",a,11\n', ["row 2 (line 3): user_id has"]),
        (GOOD + "1,b,soon\n", ["row 2 (line 3): timestamp has 'soon'"]),
        (GOOD + "1,b,nan\n", ["row 2 (line 3): timestamp has 'nan'"]),
        (GOOD + "1,b,\n", ["row 2 (line 3): timestamp has no value"]),
        (GOOD + "1,b\n", ["line 3: 2 fields, but the header has 3"]),
        (GOOD + "1,b,2,c\n", ["line 3: 4 fields, but the header has 3"]),
        (GOOD + '1,"b,2\n1,c,3\n', ["interactions.csv"]),
        ("user_id,item_id,timestamp,weight\n1,a,1,inf\n", ["row 1 (line 2): weight has inf"]),
        ("user_id,item_id,timestamp,weight\n1,a,1,-1\n", ["row 1 (line 2): weight has -1"]),
        ("user_id,item_id,timestamp,weight\n1,a,1,2\n1,b,2,\n", ["row 2", "weight has no value"]),
        ("user_id,item_id,timestamp,weight\n1,a,1,2\n1,b,2,x\n", ["row 2", "weight has 'x'"]),
    ],
)
def test_a_malformed_csv_is_refused_with_the_place(
    tmp_path: Path, csv: str, parts: list[str]
) -> None:
    (tmp_path / "interactions.csv").write_text(csv)

    message = refusal(tmp_path)

    for part in parts:
        assert part in message


def test_a_short_line_that_only_leaves_out_a_feature_is_refused_too(directory: Path) -> None:
    (directory / "items.csv").write_text('item_id,title\n1,"a, b"\n2,\n3\n')

    assert "items.csv, line 4: 1 fields, but the header has 2" in refusal(directory)


def test_a_csv_that_is_not_utf8_is_refused(directory: Path) -> None:
    (directory / "items.csv").write_bytes(b"item_id,title\n1,caf\xe9\n")

    assert "items.csv: cannot be read" in refusal(directory)


def test_an_id_twice_is_refused_with_both_rows(directory: Path) -> None:
    (directory / "items.csv").write_text("item_id\na\nb\nc\nb\na\n")

    assert "items.csv, row 4 (line 5): item_id 'b' was already in row 2" in refusal(directory)

    (directory / "items.csv").unlink()
    pl.DataFrame({"user_id": [7, 8, 7]}).write_parquet(directory / "users.parquet")

    assert "users.parquet, row 3: user_id '7' was already in row 1" in refusal(directory)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("user_id", [1.0], "column 'user_id' is Float64"),
        ("item_id", [None], "column 'item_id' is Null"),
        ("timestamp", [True], "column 'timestamp' is Boolean"),
        ("timestamp", [float("inf")], "row 1: timestamp has inf"),
        ("weight", [[1]], "column 'weight' is List(Int64)"),
    ],
)
def test_a_parquet_column_of_a_wrong_type_is_refused(
    tmp_path: Path, column: str, values: list[object], found: str
) -> None:
    columns: dict[str, list[object]] = {"user_id": [1], "item_id": [2], "timestamp": [3]}
    pl.DataFrame(columns | {column: values}).write_parquet(tmp_path / "interactions.parquet")

    assert found in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 200])
def test_a_parquet_file_that_was_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "interactions.parquet"
    frame = pl.DataFrame({"user_id": range(999), "item_id": range(999), "timestamp": range(999)})
    frame.write_parquet(path)
    path.write_bytes(path.read_bytes()[:kept])

    assert "interactions.parquet: cannot be read" in refusal(tmp_path)
