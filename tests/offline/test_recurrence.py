import numpy as np
import pytest
import torch

from offline.models.recurrence import Recurrence


@pytest.mark.parametrize("layers", [1, 2])
def test_padding_leaves_no_trace(layers: int) -> None:
    torch.manual_seed(1)
    network = Recurrence(dim=3, hidden=4, layers=layers)
    history, mask = torch.randn(2, 5, 3), torch.ones(2, 5)
    padded = torch.cat([torch.zeros(2, 7, 3), history], dim=1)
    padded_mask = torch.cat([torch.zeros(2, 7), mask], dim=1)

    with torch.no_grad():
        states, after = network(history, mask), network(padded, padded_mask)

    assert after[:, :7].abs().max().item() == 0.0
    np.testing.assert_allclose(after[:, 7:].numpy(), states.numpy(), atol=1e-6)


def test_a_step_is_that_of_the_paper() -> None:
    """Cho et al., 2014, with the reset after the product, written out for one item."""
    torch.manual_seed(1)
    network = Recurrence(dim=3, hidden=4, layers=1).double()
    item, mask = torch.randn(1, 2, 3, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)

    with torch.no_grad():
        first, second = network(item, mask)[0].numpy()
        into, back = (weight.numpy() for weight in network.gru.all_weights[0])

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-x)))

    state = np.zeros(4)
    for column, expected in enumerate((first, second)):
        read = into @ np.append(item[0, column].numpy(), 1.0)
        kept = back @ state
        reset, update = sigmoid(read[:4] + kept[:4]), sigmoid(read[4:8] + kept[4:8])
        new = np.tanh(read[8:] + reset * kept[8:])
        state = (1 - update) * new + update * state
        np.testing.assert_allclose(state, expected, atol=1e-12)
