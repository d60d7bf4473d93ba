import pytest

from benchmarks import cold
from benchmarks.table import Row
from offline.data.synthetic import generate
from offline.data.tables import write_tables


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("tables")
    write_tables(generate(users=200, items=120, interactions=8_000, seed=4).tables, folder)
    return cold.measure("demo", folder)


def value(rows: list[Row], *words: str) -> float:
    (found,) = (row for row in rows if all(word in row.what for word in words))
    return found.measured


def test_a_model_that_reads_content_finds_more_of_what_is_new_than_chance(rows: list[Row]) -> None:
    model, chance = (
        value(rows, "cold among cold", name, "HR@10") for name in (" dssm:", " chance:")
    )
    assert model > 1.3 * chance


def test_the_model_must_find_as_many_cold_items_as_its_best_peer(rows: list[Row]) -> None:
    barred = [row for row in rows if row.at_least is not None]

    assert len(barred) == 2
    for row in barred:
        question = row.what.partition(",")[0]
        assert question.startswith("cold")
        peers = [
            other.measured
            for other in rows
            if other.what.startswith(f"{question},")
            and other.what.endswith("HR@50")
            and " dssm:" not in other.what
        ]
        assert row.at_least == max(peers)
