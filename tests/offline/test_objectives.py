import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from offline.objectives import OBJECTIVES, Objective, Scores, bce, bpr, gbce, hinge, softmax

T, S, ITEMS = 4, 5, 11
# The second negative is the target of the first sample, the fifth that of the last.
HIT = torch.zeros(T, S, dtype=torch.bool)
HIT[0, 1] = HIT[3, 4] = True


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scores(shared: bool = True) -> Scores:
    """`shared`: the samples have the same negatives, else each has its own."""
    return Scores(
        positive=random(T, seed=1),
        negative=random(T, S, seed=2).masked_fill(HIT, -math.inf),
        log_weight=random(1 if shared else T, S, seed=3),
        target_log_weight=random(T, seed=4),
        items=ITEMS,
    )


Slow = Callable[[float, float, list[tuple[float, float]]], float]


def slow(found: Scores, loss: Slow) -> list[float]:
    """loss(positive, its weight, [(negative, its weight)]) of each sample, numbers only."""
    weights = found.log_weight.expand(T, S).exp().tolist()
    return [
        loss(
            float(found.positive[t]),
            math.exp(float(found.target_log_weight[t])),
            [(float(found.negative[t, s]), weights[t][s]) for s in range(S) if not HIT[t, s]],
        )
        for t in range(T)
    ]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(losses: list[tuple[float, float]]) -> float:
    return sum(loss * weight for loss, weight in losses) / sum(weight for _, weight in losses)


def slow_softmax(positive: float, own: float, negatives: list[tuple[float, float]]) -> float:
    mine = own * math.exp(positive)
    return -math.log(mine / (mine + sum(w * math.exp(n) for n, w in negatives)))


def slow_bce(positive: float, own: float, negatives: list[tuple[float, float]]) -> float:
    wrong = mean([(-math.log(1 - sigmoid(n)), w) for n, w in negatives])
    return -math.log(sigmoid(positive)) + wrong


def slow_bpr(positive: float, own: float, negatives: list[tuple[float, float]]) -> float:
    return mean([(-math.log(sigmoid(positive - n)), w) for n, w in negatives])


def slow_hinge(positive: float, own: float, negatives: list[tuple[float, float]]) -> float:
    return mean([(max(0.0, 0.3 + n - positive), w) for n, w in negatives])


DEFINITIONS: dict[str, tuple[Objective, Slow]] = {
    "softmax": (softmax(), slow_softmax),
    "bce": (bce(), slow_bce),
    "bpr": (bpr(), slow_bpr),
    "hinge": (hinge(margin=0.3), slow_hinge),
}


@pytest.mark.parametrize("shared", [True, False], ids=["one set", "a set for each sample"])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_loss_is_that_of_its_definition(name: str, shared: bool) -> None:
    objective, definition = DEFINITIONS[name]
    found = scores(shared)

    assert objective.loss(found).tolist() == pytest.approx(slow(found, definition), rel=1e-9)


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_gbce_raises_the_positive_to_the_beta_of_the_paper(calibration: float) -> None:
    found = scores()
    alpha = S / (ITEMS - 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)

    def definition(positive: float, own: float, negatives: list[tuple[float, float]]) -> float:
        wrong = sum(math.log(1 - sigmoid(n)) for n, _ in negatives)
        return -(math.log(sigmoid(positive) ** beta) + wrong)

    assert beta == pytest.approx({0.0: 1.0, 0.75: 0.625, 1.0: alpha}[calibration])
    loss = gbce(calibration=calibration).loss(found)
    assert loss.tolist() == pytest.approx(slow(found, definition), rel=1e-9)


def test_with_the_whole_catalogue_there_is_nothing_to_calibrate() -> None:
    found = scores()._replace(items=S + 1)

    plain, calibrated = (gbce(calibration=t).loss(found) for t in (0.0, 1.0))

    assert calibrated.tolist() == pytest.approx(plain.tolist())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    fixed = scores()
    objective = OBJECTIVES[name]()

    def loss(positive: Tensor, negative: Tensor) -> Tensor:
        masked = negative.masked_fill(HIT, -math.inf)
        return objective.loss(fixed._replace(positive=positive, negative=masked))

    positive, negative = (random(*size, seed=9).requires_grad_() for size in ((T,), (T, S)))
    assert torch.autograd.gradcheck(loss, (positive, negative))


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"gbce"}))
def test_an_item_drawn_twice_counts_as_two_draws_of_it(name: str) -> None:
    plain = scores()
    twice = plain._replace(
        negative=torch.cat([plain.negative, plain.negative[:, 2:3]], dim=1),
        log_weight=torch.cat([plain.log_weight, plain.log_weight[:, 2:3]], dim=1),
    )
    weight = plain.log_weight.clone()
    weight[0, 2] += math.log(2)

    loss = OBJECTIVES[name]().loss

    assert loss(plain._replace(log_weight=weight)).tolist() == pytest.approx(loss(twice).tolist())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_sample_whose_negatives_are_all_its_own_target_teaches_nothing_wrong(name: str) -> None:
    positive = random(T, seed=1).requires_grad_()
    raw = random(T, S, seed=2).requires_grad_()
    all_own = HIT.clone()
    all_own[1] = True

    loss = OBJECTIVES[name]().loss(
        scores()._replace(positive=positive, negative=raw.masked_fill(all_own, -math.inf))
    )
    torch.autograd.backward(loss.sum())

    assert torch.isfinite(loss).all()
    for leaf in (positive, raw):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
    assert raw.grad is not None
    assert raw.grad[all_own].abs().max() == 0


def test_a_target_far_ahead_costs_nothing_and_one_far_behind_is_no_overflow() -> None:
    for name, create in OBJECTIVES.items():
        far = scores()._replace(positive=torch.full((T,), 1e4, dtype=torch.float64))
        assert torch.isfinite(create().loss(far)).all(), name
        if name in ("softmax", "bpr", "hinge"):
            assert create().loss(far).max() == 0, name
        assert torch.isfinite(create().loss(far._replace(positive=-far.positive))).all(), name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_temperature_is_what_the_recipe_says(name: str) -> None:
    assert OBJECTIVES[name](temperature=0.37).temperature == 0.37
