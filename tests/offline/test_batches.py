import numpy as np
import polars as pl
import pytest

from contract.errors import TrainingError
from offline.batches import Batch, Chunks, Samples
from offline.data.dataset import Dataset, prepare
from offline.data.tables import Tables


def numbered(*lengths: int) -> Samples:
    """Users with so many interactions each, all for training: the items are 0, 1, 2, ... in the
    order of the users, so that a row of the catalogue is a position in the log."""
    users = [f"u{user}" for user, length in enumerate(lengths) for _ in range(length)]
    items = [f"i{n}" for n in range(len(users))]
    log = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": list(range(len(users)))})
    dataset = prepare(Tables(log, None, None), {}, {}, 2)
    return Samples(dataset, dataset.sequences.offsets[1:])


def chunks(*parts: tuple[int, int, int]) -> Chunks:
    return Chunks(*(np.array(column, np.int64) for column in zip(*parts, strict=True)))


def epoch(samples: Samples, size: int, length: int) -> list[Batch]:
    return [samples.batch(part) for part in samples.plan(size, length, np.random.default_rng(1))]


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_every_training_position_is_a_sample_once_an_epoch(dataset: Dataset, length: int) -> None:
    end = dataset.split().train_end
    samples = Samples(dataset, end)

    drawn = [
        (int(user), int(item))
        for batch in epoch(samples, 256, length)
        for user, items, wanted in zip(batch.users, batch.target, batch.wanted, strict=True)
        for item in items[wanted]
    ]

    offsets, items, *_ = dataset.sequences
    expected = [
        (user, int(item)) for user in range(len(end)) for item in items[offsets[user] : end[user]]
    ]
    assert sorted(drawn) == sorted(expected)
    assert len(samples) == len(expected)


def test_the_column_of_a_target_holds_the_item_before_it() -> None:
    batch = numbered(4, 9).batch(chunks((1, 7, 10)))

    assert batch.users.tolist() == [1]
    assert batch.target.tolist() == [[7, 8, 9]]
    assert batch.history.tolist() == [[6, 7, 8]]
    assert batch.mask.tolist() == batch.wanted.tolist() == [[True, True, True]]


def test_the_first_item_of_a_user_has_no_history() -> None:
    batch = numbered(4, 9).batch(chunks((1, 4, 7)))

    assert batch.target.tolist() == [[4, 5, 6]]
    assert batch.history.tolist() == [[0, 4, 5]]
    assert batch.mask.tolist() == [[False, True, True]]
    assert batch.wanted.tolist() == [[True, True, True]]


def test_a_batch_is_as_wide_as_its_longest_piece_and_padded_on_the_left() -> None:
    batch = numbered(4, 9).batch(chunks((0, 0, 2), (1, 4, 8)))

    assert batch.target.shape == (2, 4)
    assert batch.target[0, 2:].tolist() == [0, 1]
    assert batch.mask.tolist() == [[False, False, False, True], [False, True, True, True]]
    assert batch.wanted.tolist() == [[False, False, True, True], [True] * 4]


def test_columns_that_a_short_piece_leaves_free_hold_what_came_before_it() -> None:
    batch = numbered(4, 9).batch(chunks((1, 10, 12), (1, 5, 9)))

    assert batch.history[0].tolist() == [7, 8, 9, 10]
    assert batch.mask[0].tolist() == [True] * 4
    assert batch.wanted[0].tolist() == [False, False, True, True]
    assert batch.target[0, 2:].tolist() == [10, 11]


def test_a_long_sequence_is_cut_into_pieces_of_the_length_after_a_first_one_of_any_size() -> None:
    samples, firsts = numbered(3, 25), set()

    for seed in range(300):
        pieces = samples.cut(10, np.random.default_rng(seed))
        ours = pieces.users == 1
        starts, stops = pieces.start[ours].tolist(), pieces.stop[ours].tolist()
        assert (pieces.start[~ours].tolist(), pieces.stop[~ours].tolist()) == ([0], [3])
        assert (starts[0], stops[-1]) == (3, 28)
        assert starts[1:] == stops[:-1]
        assert {b - a for a, b in zip(starts[1:-1], stops[1:-1], strict=True)} <= {10}
        assert 1 <= stops[-1] - starts[-1] <= 10
        firsts.add(stops[0] - starts[0])

    assert firsts == set(range(1, 11))


def test_a_batch_holds_at_most_its_size_and_little_of_it_is_padding(dataset: Dataset) -> None:
    batches = epoch(Samples(dataset, dataset.split().train_end), 256, 20)
    areas = [batch.wanted.numel() for batch in batches]

    assert max(areas) <= 256
    assert sum(int(batch.wanted.sum()) for batch in batches) > 0.9 * sum(areas)
    # The last one may be small.
    assert np.median(areas) > 200


def test_a_piece_that_is_larger_than_a_batch_is_a_batch_alone() -> None:
    batches = epoch(numbered(30, 3, 3), 8, 100)

    assert sorted(batch.wanted.shape for batch in batches) == [(1, 30), (2, 3)]


def test_another_epoch_has_another_order_and_the_same_seed_the_same(dataset: Dataset) -> None:
    samples = Samples(dataset, dataset.split().train_end)
    generator = np.random.default_rng(1)

    first, second, again = (
        [part.users.tolist() for part in samples.plan(64, 8, source)]
        for source in (generator, generator, np.random.default_rng(1))
    )

    assert first != second
    assert first == again


def test_there_must_be_two_samples() -> None:
    with pytest.raises(TrainingError, match=r"^1 training samples; users need at least three"):
        numbered(1)
