from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from contract.arrays import I64
from contract.bundle import Bundle
from offline.data.dataset import windows
from offline.run import Run
from offline.towers import ITEM_INPUTS, USER_INPUTS, Towers, run_tower

Inputs = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def towers(bundle: Bundle) -> Towers:
    """As the service opens them, out of a published bundle."""
    return Towers.open(bundle.path)


def item_inputs(run: Run, rows: I64) -> Inputs:
    identity = run.model.item_identity.weight.detach().numpy()[rows + 1]
    arrays = (identity, run.dataset.items.codes[rows], run.dataset.items.numbers[rows])
    return dict(zip(ITEM_INPUTS, arrays, strict=True))


def user_inputs(run: Run, bundle: Bundle, users: I64, taken: int) -> Inputs:
    """Users after the first `taken` items of their history."""
    dataset = run.dataset
    rows, mask, kinds = windows(
        dataset.sequences, users, dataset.sequences.offsets[users] + taken, 20
    )
    arrays = (
        run.model.user_identity.weight.detach().numpy()[users + 1],
        dataset.users.codes[users],
        dataset.users.numbers[users],
        bundle.history_vectors[rows],
        mask.astype(np.float32),
        kinds.astype(np.int32),
    )
    return dict(zip(USER_INPUTS, arrays, strict=True))


def tensors(inputs: Inputs) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in inputs.values()]


@pytest.mark.parametrize("batch", [1, 7])
def test_the_item_tower_answers_as_the_model_does(run: Run, towers: Towers, batch: int) -> None:
    # From the end: cold items are among them.
    inputs = item_inputs(run, np.arange(len(run.dataset.item_ids))[-batch:])

    vectors, history = run_tower(towers.item, inputs)

    with torch.no_grad():
        wanted = run.model.item_inputs(*tensors(inputs))
        np.testing.assert_allclose(vectors, run.model.item_vectors(wanted), atol=1e-5)
        np.testing.assert_allclose(history, run.model.history_vectors(wanted), atol=1e-5)
    assert (vectors.shape, history.shape) == ((batch, 16), (batch, 12))
    assert vectors.dtype == history.dtype == np.float32


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_the_user_tower_answers_as_the_model_does(
    run: Run, bundle: Bundle, towers: Towers, batch: int, taken: int
) -> None:
    inputs = user_inputs(run, bundle, np.arange(batch) * 40, taken)
    assert inputs["mask"].sum() == batch * taken

    (vectors,) = run_tower(towers.user, inputs)

    with torch.no_grad():
        np.testing.assert_allclose(vectors, run.model.user_vectors(*tensors(inputs)), atol=1e-5)
    assert vectors.shape == (batch, 1, 16)
    assert np.isfinite(vectors).all()


def test_what_lies_under_the_mask_does_not_count(run: Run, bundle: Bundle, towers: Towers) -> None:
    inputs = user_inputs(run, bundle, np.arange(3), 5)
    noisy = inputs["history"].copy()
    noisy[:, :15] = 100.0

    (plain,) = run_tower(towers.user, inputs)
    (masked,) = run_tower(towers.user, inputs | {"history": noisy})

    np.testing.assert_allclose(plain, masked, atol=1e-6)


def test_a_tower_takes_the_inputs_it_has_and_no_others(run: Run, towers: Towers) -> None:
    inputs = item_inputs(run, np.arange(3))

    plain = run_tower(towers.item, inputs)
    more = run_tower(towers.item, inputs | {"history": np.zeros((3, 20, 12), np.float32)})

    assert {node.name for node in towers.item.get_inputs()} <= set(ITEM_INPUTS)
    assert {node.name for node in towers.user.get_inputs()} <= set(USER_INPUTS)
    np.testing.assert_array_equal(plain[0], more[0])


def test_only_the_batch_size_is_free(towers: Towers) -> None:
    shapes = {node.name: node.shape for node in towers.user.get_inputs()}

    assert shapes["history"] == ["batch", 20, 12]
    assert shapes["mask"] == ["batch", 20]
    assert [node.shape for node in towers.user.get_outputs()] == [["batch", 1, 16]]
