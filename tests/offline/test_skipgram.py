import numpy as np
import pytest

from contract.arrays import I32, I64
from contract.errors import RecipeError, TrainingError
from contract.features import Fields, Schema
from offline.models import create_model
from offline.skipgram import Neighbours, draw_pairs, positions

# Three sequences: 10 11 12 13, one of a single item, 30 31; the last item of each is not training.
ITEMS: I32 = np.array([10, 11, 12, 13, 99, 20, 99, 30, 31, 99], np.int32)
BEGIN: I64 = np.array([0, 5, 7])
UNTIL: I64 = np.array([4, 6, 9])


def test_the_places_of_ranges_come_one_after_the_other() -> None:
    found = positions(np.array([3, 7, 7, 0]), np.array([5, 7, 10, 1]))

    assert found.tolist() == [3, 4, 7, 8, 9, 0]


def test_every_item_with_neighbours_gets_one_and_each_is_as_likely() -> None:
    generator, draws = np.random.default_rng(1), 6000
    counts: dict[tuple[int, int], int] = {}
    for _ in range(draws):
        pairs = draw_pairs(ITEMS, BEGIN, UNTIL, 2, generator)
        assert pairs.center.tolist() == [10, 11, 12, 13, 30, 31]
        for pair in zip(pairs.center.tolist(), pairs.near.tolist(), strict=True):
            counts[pair] = counts.get(pair, 0) + 1

    expected = {(30, 31): 1.0, (31, 30): 1.0}
    expected |= {(10, 11): 1 / 2, (10, 12): 1 / 2, (13, 12): 1 / 2, (13, 11): 1 / 2}
    expected |= {(11, n): 1 / 3 for n in (10, 12, 13)} | {(12, n): 1 / 3 for n in (10, 11, 13)}
    assert {pair: count / draws for pair, count in counts.items()} == pytest.approx(
        expected, abs=0.03
    )


def test_an_epoch_has_each_pair_once_in_batches_of_at_most_the_size() -> None:
    source = Neighbours(ITEMS, BEGIN, UNTIL, 1)

    plan = source.plan(4, 0, np.random.default_rng(0))

    assert len(source) == 6
    assert sorted(len(part.center) for part in plan) == [2, 4]
    centers = np.concatenate([part.center for part in plan])
    assert sorted(centers.tolist()) == [10, 11, 12, 13, 30, 31]


def test_a_pair_is_a_history_of_one_item_and_its_target() -> None:
    source = Neighbours(ITEMS, BEGIN[2:], UNTIL[2:], 1)
    (part,) = source.plan(10, 0, np.random.default_rng(0))

    batch = source.batch(part)

    assert sorted(zip(batch.history[:, 0].tolist(), batch.target[:, 0].tolist(), strict=True)) == [
        (30, 31),
        (31, 30),
    ]
    assert batch.users.tolist() == [0, 0]
    assert batch.mask.tolist() == batch.wanted.tolist() == [[True], [True]]


def test_without_two_items_in_a_sequence_there_is_nothing_to_train_on() -> None:
    with pytest.raises(TrainingError, match=r"^no two items in one sequence; give "):
        Neighbours(ITEMS, BEGIN[1:2], UNTIL[1:2], 1)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("item2vec", {"window": 0}),
        ("item2vec", {"decay": 0.0}),
        ("item2vec", {"decay": 1.1}),
        ("node2vec", {"walks": 0}),
        ("node2vec", {"walk_length": 1}),
        ("node2vec", {"p": 0.0}),
        ("node2vec", {"q": -1.0}),
    ],
)
def test_an_impossible_parameter_is_refused(model: str, parameters: dict[str, float]) -> None:
    schema = Schema(users=Fields(), items=Fields(), history_length=5)

    with pytest.raises(RecipeError, match=rf"^model '{model}': .* expected "):
        create_model(model, schema, 3, 3, parameters)
