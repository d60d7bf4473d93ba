import numpy as np
import polars as pl
import pytest

from contract.errors import TrainingError
from offline.batches import Samples
from offline.data.dataset import Dataset, prepare
from offline.data.tables import Tables


def one_user(length: int) -> Dataset:
    log = pl.DataFrame(
        {
            "user_id": ["u"] * length,
            "item_id": [f"i{n}" for n in range(length)],
            "timestamp": list(range(length)),
        }
    )
    return prepare(Tables(log, None, None), {}, {}, 2)


def test_every_training_position_is_a_sample_once_an_epoch(dataset: Dataset) -> None:
    end = dataset.split().train_end
    samples = Samples(dataset, end)
    batches = list(samples.batches(256, np.random.default_rng(1)))

    drawn = sorted(
        (int(user), int(batch.items[target]))
        for batch in batches
        for user, target in zip(batch.users, batch.target, strict=True)
    )

    offsets, items = dataset.sequences
    assert len(samples) == len(drawn) == int((end - offsets[:-1]).sum())
    expected = sorted(
        (user, int(item)) for user in range(len(end)) for item in items[offsets[user] : end[user]]
    )
    assert drawn == expected


def test_a_batch_points_into_its_distinct_items(dataset: Dataset) -> None:
    samples = Samples(dataset, dataset.split().train_end)
    offsets, items = dataset.sequences
    position = int(offsets[5]) + 3

    batch = samples.batch(np.array([position, int(offsets[9])]))

    assert batch.users.tolist() == [5, 9]
    assert len(set(batch.items.tolist())) == len(batch.items)
    assert batch.items[batch.target].tolist() == [items[position], items[offsets[9]]]
    history = batch.items[batch.history[0, -3:]].tolist()
    assert history == items[position - 3 : position].tolist()
    assert batch.mask.sum(dim=1).tolist() == [3.0, 0.0]
    assert batch.mask[0].tolist() == [0.0] * 17 + [1.0] * 3


def test_another_epoch_has_another_order_and_the_same_seed_the_same(dataset: Dataset) -> None:
    samples = Samples(dataset, dataset.split().train_end)
    generator = np.random.default_rng(1)

    first, second = (next(samples.batches(8, generator)).users.tolist() for _ in range(2))

    assert first != second
    assert next(samples.batches(8, np.random.default_rng(1))).users.tolist() == first


def test_a_last_batch_of_one_sample_is_left_out() -> None:
    dataset = one_user(7)
    samples = Samples(dataset, dataset.split().train_end)

    sizes = [len(batch.users) for batch in samples.batches(2, np.random.default_rng(1))]

    assert len(samples) == 5
    assert sizes == [2, 2]


def test_there_must_be_two_samples() -> None:
    dataset = one_user(3)

    with pytest.raises(TrainingError, match=r"^1 training samples; users need at least three"):
        Samples(dataset, dataset.split().train_end)
