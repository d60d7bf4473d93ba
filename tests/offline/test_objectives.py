import math

import pytest
import torch
from torch import Tensor

from offline.objectives import OBJECTIVES, best_interest, in_batch_softmax

# Rows 4 and 4 are the same item twice: an accidental hit.
ROWS = torch.tensor([4, 1, 4, 7])
LOG_Q = torch.log(torch.tensor([0.5, 0.1, 0.5, 0.02]))


def vectors(interests: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    users = torch.randn(4, interests, 3, generator=generator)
    items = torch.randn(4, 3, generator=generator)
    items[2] = items[0]
    return users.requires_grad_(), items.requires_grad_()


def slow_loss(users: Tensor, items: Tensor, temperature: float, logq: float) -> float:
    """The definition, a sum at a time."""
    losses = []
    for b in range(len(users)):
        chosen = max(users[b].tolist(), key=lambda vector: dot(vector, items[b].tolist()))
        logits = {
            j: dot(chosen, items[j].tolist()) / temperature - logq * float(LOG_Q[j])
            for j in range(len(items))
            if j == b or ROWS[j] != ROWS[b]
        }
        losses.append(math.log(sum(map(math.exp, logits.values()))) - logits[b])
    return sum(losses) / len(losses)


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("interests", [1, 3])
@pytest.mark.parametrize(("temperature", "logq"), [(1.0, 0.0), (0.2, 1.0), (0.5, 0.5)])
def test_in_batch_softmax_is_the_loss_of_its_definition(
    interests: int, temperature: float, logq: float
) -> None:
    users, items = vectors(interests)

    loss = in_batch_softmax(temperature, logq)(users, items, ROWS, LOG_Q)

    assert loss.item() == pytest.approx(slow_loss(users, items, temperature, logq), rel=1e-5)


def test_the_gradient_reaches_users_and_items_and_agrees_with_finite_differences() -> None:
    users, items = (v.detach().double().requires_grad_() for v in vectors(2))
    objective = in_batch_softmax(0.5)

    def loss(users: Tensor, items: Tensor) -> Tensor:
        return objective(users, items, ROWS, LOG_Q.double())

    assert torch.autograd.gradcheck(loss, (users, items))


def test_only_the_interest_that_fits_the_item_is_trained() -> None:
    users = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [1.0, 0.0]]], requires_grad=True)
    items = torch.tensor([[0.0, 1.0], [0.5, 1.0]])

    assert best_interest(users, items).tolist() == [[0.0, 1.0], [0.0, 2.0]]
    loss = in_batch_softmax(1.0)(users, items, torch.tensor([0, 1]), torch.zeros(2))
    torch.autograd.backward(loss)

    assert users.grad is not None
    assert users.grad.abs().sum(dim=2).bool().tolist() == [[False, True], [True, False]]


def test_a_batch_of_one_item_only_has_nothing_to_tell_apart() -> None:
    users, items = vectors(1)
    rows = torch.full((4,), 9)

    assert in_batch_softmax()(users, items, rows, LOG_Q).item() == pytest.approx(0.0, abs=1e-6)


def test_every_objective_of_the_table_can_be_made_without_parameters() -> None:
    users, items = vectors(1)

    for name, create in OBJECTIVES.items():
        loss = create()(users, items, ROWS, LOG_Q)
        assert loss.shape == (), name
        assert torch.isfinite(loss), name
