import math

import numpy as np
import pytest
import torch

from contract.arrays import F64
from contract.errors import RecipeError
from contract.features import Fields, Schema
from offline.models import create_model
from offline.models.routing import route, squash

ROUNDS = 3
BATCH, CAPSULES, WIDTH, DIM = 2, 3, 5, 4


def squashed(vector: F64) -> F64:
    length = float(np.linalg.norm(vector))
    return vector / length * length**2 / (1 + length**2) if length else vector


def routed(votes: F64, logits: F64, counts: F64) -> F64:
    """votes (K, W, D), logits and counts (K, W): one item and one capsule at a time."""
    capsules, items, dim = votes.shape
    logits = logits.copy()
    found = np.zeros((capsules, dim))
    for turn in range(ROUNDS):
        shares = np.zeros((capsules, items))
        for item in range(items):
            odds = [math.exp(logits[capsule, item]) for capsule in range(capsules)]
            shares[:, item] = np.array(odds) / sum(odds)
        for capsule in range(capsules):
            total = sum(
                shares[capsule, item] * counts[capsule, item] * votes[capsule, item]
                for item in range(items)
            )
            found[capsule] = squashed(np.asarray(total))
        if turn < ROUNDS - 1:
            for capsule in range(capsules):
                for item in range(items):
                    logits[capsule, item] += found[capsule] @ votes[capsule, item]
    return found


def test_routing_is_that_of_one_position_at_a_time() -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, CAPSULES, WIDTH, WIDTH)
    votes = torch.randn(BATCH, CAPSULES, WIDTH, DIM, generator=generator, dtype=torch.float64)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    logits[0, 2] = -math.inf
    counts = torch.rand(shape, generator=generator, dtype=torch.float64)
    counts = counts * torch.ones(WIDTH, WIDTH).tril()

    capsules = route(votes, logits, counts, ROUNDS)

    assert capsules.shape == (BATCH, WIDTH, CAPSULES, DIM)
    for user in range(BATCH):
        for position in range(WIDTH):
            expected = routed(
                votes[user].numpy(),
                logits[user, :, position].numpy(),
                counts[user, :, position].numpy(),
            )
            np.testing.assert_allclose(capsules[user, position].numpy(), expected, atol=1e-7)


def test_a_capsule_that_takes_no_part_stays_empty() -> None:
    votes = torch.ones(1, 2, 3, DIM)
    logits = torch.zeros(1, 2, 1, 3)
    logits[:, 1] = -math.inf

    capsules = route(votes, logits, torch.ones(1, 2, 1, 3), ROUNDS)[0, 0]

    # Three items of ones add up to vectors of three: length 6, squashed to 36 / 37.
    assert capsules[0].norm().item() == pytest.approx(36 / 37)
    assert capsules[1].tolist() == [0.0] * DIM


def test_squashing_nothing_has_a_finite_gradient() -> None:
    nothing = torch.zeros(1, DIM, requires_grad=True)

    torch.autograd.backward(squash(nothing).sum())

    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


@pytest.mark.parametrize("name", ["mind", "comirec_dr"])
def test_routing_takes_at_least_one_round(name: str) -> None:
    nothing = Fields(fields=())
    schema = Schema(users=nothing, items=nothing, history_length=3)

    with pytest.raises(RecipeError, match=f"model '{name}': rounds is 0, expected at least 1"):
        create_model(name, schema, users=2, items=2, parameters={"rounds": 0})
