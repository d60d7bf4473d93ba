import math

import numpy as np
import pytest
import torch
from torch import Tensor

from contract.errors import RecipeError
from contract.features import Fields, Schema
from offline.layers import Recency
from offline.models import create_model
from offline.models.prefix import PrefixAttention, PrefixModel, window
from offline.models.sine import Sine

LENGTH, WIDTH, DIM = 3, 6, 4
POOLING = ["stamp", "sine", "mind", "comirec_dr", "comirec_sa"]


def created(name: str, length: int = LENGTH, **parameters: object) -> PrefixModel:
    nothing = Fields(fields=())
    schema = Schema(users=nothing, items=nothing, history_length=length)
    torch.manual_seed(1)
    model = create_model(name, schema, users=2, items=9, parameters={"dim": 8} | parameters)
    assert isinstance(model, PrefixModel)
    return model.eval()


def inputs(history: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    none = torch.zeros(len(history), 0)
    return none, none.int(), none, history, mask, torch.zeros_like(mask)


def test_a_position_looks_at_itself_and_at_the_last_real_items() -> None:
    mask = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.0]])

    assert window(mask, LENGTH)[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]


def test_attention_is_that_of_one_position_at_a_time() -> None:
    torch.manual_seed(1)
    attention = PrefixAttention(DIM, hidden=5, heads=2, length=LENGTH).double()
    torch.nn.init.normal_(attention.recency.bias)
    items = torch.randn(1, WIDTH, DIM, dtype=torch.float64)
    visible = window(torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0]]), LENGTH)

    with torch.no_grad():
        weights = attention(items, visible)[0].numpy()
        scores = attention.narrow(torch.tanh(attention.wide(items)))[0].numpy()  # (W, heads)
        bias = attention.recency.bias.numpy()

    for head in range(2):
        for position in range(1, WIDTH):
            seen = range(max(1, position - LENGTH + 1), position + 1)
            odds = {at: math.exp(scores[at, head] + bias[head, position - at]) for at in seen}
            expected = [odds.get(at, 0.0) / sum(odds.values()) for at in range(WIDTH)]
            np.testing.assert_allclose(weights[head, position], expected, atol=1e-12)


@pytest.mark.parametrize(("heads", "half_lives"), [(1, [16]), (4, [2, 8, 32, 128])])
def test_heads_begin_to_forget_at_speeds_of_their_own(heads: int, half_lives: list[int]) -> None:
    visible = window(torch.ones(1, 150), 200)

    with torch.no_grad():
        weights = Recency(heads, 200).weights(visible)[0]

    for head, half_life in enumerate(half_lives):
        for position in (140, 149):
            own = weights[head, position]
            assert own[position] == 1
            assert own[position - half_life].item() == pytest.approx(0.5)
            assert own[position - half_life // 2].item() == pytest.approx(2**-0.5)


@pytest.mark.parametrize("name", POOLING)
def test_each_position_is_the_user_of_the_items_in_its_window(name: str) -> None:
    """Training at all positions of a long sequence and a request with a history of its own."""
    model = created(name)
    history = torch.randn(1, WIDTH, 8)
    mask = torch.ones(1, WIDTH)

    with torch.no_grad():
        along = model.sequence_vectors(*inputs(history, mask))
        for position in range(WIDTH):
            start = max(0, position - LENGTH + 1)
            padding = LENGTH - (position + 1 - start)
            own = torch.zeros(1, LENGTH, 8)
            own[:, padding:] = history[:, start : position + 1]
            real = (torch.arange(LENGTH) >= padding).float().unsqueeze(0)
            user = model.user_vectors(*inputs(own, real))

            np.testing.assert_allclose(along[:, position].numpy(), user.numpy(), atol=1e-6)


def test_mind_has_as_many_interests_as_the_history_is_long_enough_for() -> None:
    model = created("mind", length=16, interests=4)

    with torch.no_grad():
        vectors = model.sequence_vectors(*inputs(torch.randn(1, 16, 8), torch.ones(1, 16)))[0]

    distinct = [len(np.unique(v.numpy().round(5), axis=0)) for v in vectors]
    assert distinct == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4]


def test_sine_divides_each_item_among_the_chosen_prototypes() -> None:
    model = created("sine", prototypes=6, active=2)
    assert isinstance(model, Sine)
    items = torch.randn(2, WIDTH, 8)
    chosen = torch.randint(0, 6, (2, WIDTH, 2))

    with torch.no_grad():
        shares = model._shares(items, chosen).numpy()
        assigned, prototypes = model.assign(items).numpy(), model.prototypes.numpy()

    def normed(vectors: np.ndarray) -> np.ndarray:
        centred = vectors - vectors.mean(-1, keepdims=True)
        return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5))

    for user, position, item in np.ndindex(2, WIDTH, WIDTH):
        likeness = normed(prototypes[chosen[user, position]]) @ normed(assigned[user, item])
        odds = np.exp(likeness / math.sqrt(8))
        np.testing.assert_allclose(
            shares[user, :, position, item], odds / odds.sum(), rtol=1e-4, atol=1e-6
        )


def test_sine_cannot_activate_more_prototypes_than_it_has() -> None:
    with pytest.raises(RecipeError, match="active is 7, expected 1 to prototypes, 6"):
        created("sine", prototypes=6, active=7)


@pytest.mark.parametrize("name", ["mind", "comirec_dr", "comirec_sa"])
def test_a_user_has_at_least_one_interest(name: str) -> None:
    with pytest.raises(RecipeError, match="interests is 0, expected at least 1"):
        created(name, interests=0)
