"""Tables of any bytes: read, or refused with an error of ours in one line that names the file."""

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given

from contract.errors import DataError
from offline.data.tables import read_tables
from tests.service.test_hostile_bundle import HOSTILE, Spoiling, refused_at_most, spoilings

ROWS = 50
FRAME = pl.DataFrame(
    {
        "user_id": [f"u{n % 7}" for n in range(ROWS)],
        "item_id": [f"i{n % 11}" for n in range(ROWS)],
        "timestamp": range(ROWS),
        "weight": [n / 2 for n in range(ROWS)],
    }
)


@pytest.fixture(scope="module", params=["parquet", "csv"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / f"interactions.{request.param}"
    FRAME.write_parquet(path) if path.suffix == ".parquet" else FRAME.write_csv(path)
    return path


@HOSTILE
@given(spoiling=spoilings)
def test_a_spoilt_table_is_refused_or_read(table: Path, spoiling: Spoiling) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / table.name
        copy.write_bytes(spoiling.of(table.read_bytes()))
        with refused_at_most(DataError, named=copy):
            assert read_tables(Path(folder)).interactions.columns[:2] == ["user_id", "item_id"]
