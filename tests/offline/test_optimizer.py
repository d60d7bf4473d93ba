import copy
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from offline.optimizer import BETAS, EPSILON, Optimizer

DECAY, RATE = 0.1, 0.03
ALL = torch.arange(6)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.table = nn.Embedding(6, 3)
        self.linear = nn.Linear(3, 1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def loss(self, rows: Tensor, step: int) -> Tensor:
        """Another one at each step, and other gradients for each row."""
        scale = torch.arange(1.0, len(rows) + 1).unsqueeze(1) * (1 + step % 3)
        return cast(Tensor, self.linear(torch.tanh(rows)) * scale).square().sum()


def steps(model: Small, optimizer: Optimizer, touched: list[Tensor], clip: float = 1e9) -> None:
    (rows,) = optimizer.rows
    for number, at in enumerate(touched):
        torch.autograd.backward(model.loss(rows.gather(at), number))
        optimizer.collect(clip)
        optimizer.step(RATE)


def weights(model: Small) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_it_is_adam_where_every_row_is_touched_every_time() -> None:
    ours, theirs = Small(), Small()
    adam = torch.optim.AdamW(
        theirs.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY
    )

    steps(ours, Optimizer(ours, [ours.table], DECAY), [ALL] * 7)
    for number in range(7):
        adam.zero_grad()
        torch.autograd.backward(theirs.loss(theirs.table.weight, number))
        adam.step()

    for found, wanted in zip(weights(ours), weights(theirs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ours.table.weight, Small().table.weight)


def test_a_row_that_is_not_touched_rests_and_so_do_its_moments() -> None:
    model = Small()
    before = model.table.weight.detach().clone()
    optimizer = Optimizer(model, [model.table], DECAY)
    (rows,) = optimizer.rows

    steps(model, optimizer, [torch.tensor([4, 1])] * 3)

    rest = [0, 2, 3, 5]
    assert torch.equal(model.table.weight[rest], before[rest])
    assert rows.first[rest].abs().max() == rows.second[rest].abs().max() == 0
    assert rows.steps.flatten().tolist() == [0, 3, 0, 0, 3, 0]
    assert (model.table.weight[[1, 4]] != before[[1, 4]]).all()


def test_the_moments_of_a_row_are_corrected_by_its_own_steps() -> None:
    """The first step of a row is as long as that of any other, however late it comes."""
    model = Small()
    optimizer = Optimizer(model, [model.table], 0.0)
    steps(model, optimizer, [torch.tensor([1])] * 5)
    before = model.table.weight.detach().clone()

    steps(model, optimizer, [torch.tensor([4])])

    change = (model.table.weight[4] - before[4]).abs()
    torch.testing.assert_close(change, torch.full((3,), RATE), rtol=1e-3, atol=0)


def test_all_gradients_together_are_clipped_to_the_norm() -> None:
    model, reference = Small(), Small()
    optimizer = Optimizer(model, [model.table], 0.0)
    torch.autograd.backward(reference.loss(reference.table.weight[ALL], 0))
    gradients = [p.grad for p in reference.parameters() if p.grad is not None]
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())

    (rows,) = optimizer.rows
    torch.autograd.backward(model.loss(rows.gather(ALL), 0))
    found = optimizer.collect(norm / 4)

    assert found == pytest.approx(norm, rel=1e-5)
    dense = [p.grad for p in optimizer.dense if p.grad is not None]
    for ours, theirs in zip([rows.gradient, *dense], gradients, strict=True):
        torch.testing.assert_close(ours, theirs / 4)


def test_gradients_within_the_norm_are_left_as_they_are() -> None:
    model = Small()
    optimizer = Optimizer(model, [model.table], 0.0)
    (rows,) = optimizer.rows
    leaf = rows.gather(ALL)
    torch.autograd.backward(model.loss(leaf, 0))

    optimizer.collect(1e9)

    assert leaf.grad is not None
    assert torch.equal(rows.gradient, leaf.grad)


def test_a_restored_optimizer_goes_on_as_if_it_had_never_stopped() -> None:
    touched = [torch.tensor([4, 1]), torch.tensor([1, 5]), ALL, torch.tensor([0, 4])]
    whole, first, second = Small(), Small(), Small()
    steps(whole, Optimizer(whole, [whole.table], DECAY), touched)

    optimizer = Optimizer(first, [first.table], DECAY)
    steps(first, optimizer, touched[:2])
    saved = copy.deepcopy(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    restored = Optimizer(second, [second.table], DECAY)
    restored.load_state_dict(saved)
    (rows,) = restored.rows
    for number in (2, 3):
        torch.autograd.backward(second.loss(rows.gather(touched[number]), number))
        restored.collect(1e9)
        restored.step(RATE)

    for found, wanted in zip(weights(second), weights(whole), strict=True):
        assert torch.equal(found, wanted)
