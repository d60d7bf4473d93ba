import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contract.features import Block
from offline.layers import FieldEmbedding, Pooling, RecencyPooling, SeparatePooling
from offline.models import MODELS, reads_several
from offline.models.two_tower import TwoTower
from offline.models.youtube_dnn import YoutubeDnn

# A category of one code, then a text of up to five.
BLOCKS = (Block(0, 1, 4), Block(1, 5, 9))
CODES = torch.tensor([[1, 3, 8, 2, 0, 0], [0, 5, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]])
NUMBERS = torch.tensor([[0.5], [-1.0], [0.0]])


def create(name: str, **parameters: Any) -> nn.Module:
    torch.manual_seed(1)
    if reads_several(name):
        parameters = {"histories": 0} | parameters
    model = MODELS[name](
        users=3,
        items=3,
        user_blocks=(),
        item_blocks=BLOCKS,
        user_numbers=0,
        item_numbers=1,
        history_length=4,
        **parameters,
    )
    assert isinstance(model, nn.Module)
    return model.eval()


def fields(name: str) -> FieldEmbedding:
    model = create(name, field_dim=6)
    assert isinstance(model, TwoTower)
    return model.item_fields


def several(reader: FieldEmbedding) -> Tensor:
    """What a reader makes of the text, the second field."""
    with torch.no_grad():
        read: Tensor = reader(CODES, NUMBERS)
    return read[:, 1 + 6 :]


def test_a_weighted_field_is_the_mean_of_its_values_by_their_weights() -> None:
    reader = fields("facebook_dssm")
    table, weights = reader.table(1).detach(), torch.linspace(-2, 2, 9).unsqueeze(1)
    plain = several(reader)
    with torch.no_grad():
        reader.get_parameter("weights.1").copy_(weights)

    found = several(reader)

    of = weights[:, 0].exp()
    total = of[3] * table[3] + of[8] * table[8] + of[2] * table[2]
    torch.testing.assert_close(found[0], total / (of[3] + of[8] + of[2]))
    torch.testing.assert_close(found[1], table[5])
    torch.testing.assert_close(found[2], torch.zeros(6))
    torch.testing.assert_close(plain[0], table[[3, 8, 2]].mean(0))


def test_a_convolved_field_is_the_strongest_finding_of_its_windows() -> None:
    reader = fields("cdssm")
    table = reader.table(1).detach()
    weight = reader.get_parameter("windows.1.weight").detach()  # (found, dim, window)
    bias = reader.get_parameter("windows.1.bias").detach()

    def at(*codes: int) -> Tensor:
        columns = [weight[:, :, n] @ table[code] for n, code in enumerate(codes) if code]
        return bias + torch.stack(columns).sum(0)

    found = several(reader)

    windows = torch.stack([at(0, 3, 8), at(3, 8, 2), at(8, 2, 0)])
    torch.testing.assert_close(found[0], windows.amax(0).tanh())
    torch.testing.assert_close(found[1], at(0, 5, 0).tanh())
    assert found[2].tolist() == [0.0] * 6


def test_a_convolved_field_depends_on_the_order_and_a_mean_does_not() -> None:
    turned = CODES[:, [0, 2, 1, 3, 4, 5]]

    for name, ordered in (("cdssm", True), ("dssm", False)):
        reader = fields(name)
        with torch.no_grad():
            assert torch.allclose(reader(CODES, NUMBERS), reader(turned, NUMBERS)) is not ordered


def test_the_gradient_of_a_convolved_field_without_values_is_finite() -> None:
    reader = fields("cdssm")

    torch.autograd.backward(reader(CODES, NUMBERS).sum())

    gradients = [p.grad for p in reader.parameters() if p.grad is not None]
    assert len(gradients) == 4
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_the_mean_of_the_last_items_leaves_out_what_is_masked() -> None:
    history = torch.arange(10.0).reshape(1, 5, 2)
    mask = torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0]])

    found = Pooling(4).along(history * mask.unsqueeze(2), mask, history.shape[1])

    assert found[0, 0].tolist() == [0.0, 0.0]
    assert found[0, 1].tolist() == [2.0, 3.0]
    assert found[0, 4].tolist() == pytest.approx([16 / 3, 19 / 3])


def test_a_position_along_a_history_is_pooled_as_if_it_were_the_last() -> None:
    pooling, (history, mask, _) = RecencyPooling(4), random_history()

    found = pooling.along(history, mask, 9)

    for width in range(1, 10):
        alone = pooling(history[:, :width], mask[:, :width])
        torch.testing.assert_close(found[:, width - 1], alone)


@pytest.mark.parametrize("histories", [0, 2])
def test_a_position_along_several_histories_is_pooled_as_if_it_were_the_last(
    histories: int,
) -> None:
    pooling, parts = SeparatePooling(4, histories), random_history()

    found = pooling.along(*parts, 9)

    for width in range(1, 10):
        alone = pooling(*(part[:, :width] for part in parts))
        torch.testing.assert_close(found[:, width - 1], alone)


def random_history() -> tuple[Tensor, Tensor, Tensor]:
    """Three of nine items each, the mask, and to which of three histories an item belongs."""
    mask = (torch.rand(3, 9) > 0.3).float()
    return torch.randn(3, 9, 2) * mask.unsqueeze(2), mask, torch.randint(0, 3, (3, 9))


def test_a_kind_is_pooled_beside_the_whole_with_weights_of_its_own() -> None:
    pooling = SeparatePooling(3, 1)
    with torch.no_grad():
        pooling.get_parameter("poolings.0.weights").copy_(torch.tensor([0.0, 0.0, 0.0]))
        pooling.get_parameter("poolings.1.weights").copy_(torch.tensor([0.0, math.log(3), 0.0]))
    history, kinds = torch.tensor([[[1.0], [10.0], [100.0]]]), torch.tensor([[1, 1, 0]])

    found = pooling(history, torch.ones(1, 3), kinds)
    empty = pooling(history, torch.ones(1, 3), torch.zeros(1, 3))

    # The mean and the weighted mean of the whole, then those of history 1.
    torch.testing.assert_close(found, torch.tensor([[37.0, 37.0, 5.5, 31 / 4]]))
    torch.testing.assert_close(empty, torch.tensor([[37.0, 37.0, 0.0, 0.0]]))


def test_pooling_by_recency_learns_one_weight_per_step_back() -> None:
    pooling = RecencyPooling(3)
    with torch.no_grad():
        pooling.weights.copy_(torch.tensor([0.0, math.log(2), math.log(5)]))

    found = pooling(torch.tensor([[[1.0], [10.0], [100.0]]]), torch.ones(1, 3))

    torch.testing.assert_close(found, torch.tensor([[37.0, 521 / 8]]))


def test_an_item_of_youtube_dnn_is_two_plain_embeddings_side_by_side() -> None:
    model = create("youtube_dnn", dim=3, history_dim=2)
    assert isinstance(model, YoutubeDnn)
    identity = torch.tensor([[3.0, 0.0, 4.0, 7.0, 8.0]])

    inputs = model.item_inputs(identity, CODES[:1], NUMBERS[:1])

    torch.testing.assert_close(model.item_vectors(inputs), torch.tensor([[0.6, 0.0, 0.8]]))
    assert model.history_vectors(inputs).tolist() == [[7.0, 8.0]]


def test_the_towers_of_youtube_sbc_are_deeper() -> None:
    deep, shallow = (create(name).get_submodule("item_tower") for name in ("youtube_sbc", "dssm"))

    assert [sum(isinstance(m, nn.Linear) for m in t.modules()) for t in (deep, shallow)] == [3, 2]


@pytest.mark.parametrize("name", ["dssm", "facebook_dssm", "cdssm", "youtube_sbc"])
def test_without_dropped_ids_the_unknown_one_says_nothing(name: str) -> None:
    model = create(name, id_dropout=0.0)
    assert isinstance(model, TwoTower)

    for identity in (model.user_identity, model.item_identity):
        assert not identity.weight[0].any()
        assert identity.weight[1:].any(dim=1).all()


def test_an_unknown_category_says_nothing() -> None:
    read = fields("dssm")

    unknown, known = read(torch.tensor([[0, 2, 0, 0, 0, 0], [1, 2, 0, 0, 0, 0]]), NUMBERS[:2])

    assert not unknown[1:7].any()
    assert known[1:7].all()
    torch.testing.assert_close(unknown[7:], known[7:])
