"""Training objectives: functions of the scores of a step that return one loss.

What is told apart from the targets is a sampler's business (`offline.negatives`); each objective
works with each sampler, and undoes by the weights what the sampler did.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

TINY = torch.finfo(torch.float32).tiny


class Scores(NamedTuple):
    """Of T samples and the S negatives of the step: inner products over the temperature."""

    positive: Tensor  # (T,)
    negative: Tensor  # (T, S), -inf where the negative is the sample's own target
    log_weight: Tensor  # (1, S) or (T, S): logarithm of how often each negative counts
    target_log_weight: Tensor  # (T,)
    items: int  # those that negatives are drawn from


class Objective(NamedTuple):
    temperature: float
    loss: Callable[[Scores], Tensor]
    """The loss of each sample (T,)."""


def softmax(temperature: float = 0.05) -> Objective:
    """Listwise: the target against all negatives at once; the sampled softmax where these are
    draws. For a user vector u, a target v of weight w and negatives v', w':
    -log(w e^(uv/T) / (w e^(uv/T) + sum w' e^(uv'/T)))."""

    def loss(scores: Scores) -> Tensor:
        positive = scores.positive + scores.target_log_weight
        negative = cast(Tensor, _LogSumExp.apply(scores.negative, scores.log_weight))  # type: ignore[no-untyped-call]
        return softplus(negative - positive)

    return Objective(temperature, loss)


def bce(temperature: float = 1.0) -> Objective:
    """Pointwise: is it the target, asked of the target and, with equal weight in all, of the
    negatives."""

    def loss(scores: Scores) -> Tensor:
        positive = softplus(-scores.positive)
        return positive + _mean(softplus(scores.negative), scores)

    return Objective(temperature, loss)


def gbce(temperature: float = 1.0, calibration: float = 0.75) -> Objective:
    """Pointwise, with the overconfidence undone that few negatives bring (Petrov and Macdonald,
    "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative Sampling",
    RecSys 2023): the positive's probability to the power of beta. `calibration` is the paper's t:
    0 is plain BCE, 1 is fully calibrated."""

    def loss(scores: Scores) -> Tensor:
        rate = min(1.0, scores.negative.shape[1] / max(1, scores.items - 1))
        beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
        positive = -beta * logsigmoid(scores.positive)
        return positive + softplus(scores.negative).sum(dim=1)

    return Objective(temperature, loss)


def bpr(temperature: float = 1.0) -> Objective:
    """Pairwise, smooth (Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback",
    UAI 2009)."""

    def loss(scores: Scores) -> Tensor:
        margin = scores.negative - scores.positive.unsqueeze(1)
        return _mean(softplus(margin), scores)

    return Objective(temperature, loss)


def hinge(temperature: float = 1.0, margin: float = 0.2) -> Objective:
    """Pairwise: the target must lead each negative by a margin."""

    def loss(scores: Scores) -> Tensor:
        short = margin + scores.negative - scores.positive.unsqueeze(1)
        return _mean(torch.relu(short), scores)

    return Objective(temperature, loss)


class _LogSumExp(torch.autograd.Function):
    """logsumexp(scores (T, S) + log_weight (1 or T, S)) -> (T,), in half the passes over memory of
    what autograd would do: the exponentials are kept for the way back, not taken again."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, log_weight: Tensor) -> Tensor:
        powers = scores + log_weight
        # A sample whose negatives are all its own target has none: not inf - inf.
        top = powers.amax(1, keepdim=True).clamp(min=torch.finfo(powers.dtype).min)
        total = powers.sub_(top).exp_().sum(1, keepdim=True).clamp(min=TINY)
        ctx.save_for_backward(powers, total)
        return (total.log() + top).squeeze(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        powers, total = ctx.saved_tensors
        return powers * (gradient.unsqueeze(1) / total), None


def _mean(losses: Tensor, scores: Scores) -> Tensor:
    """losses (T, S) -> (T,): the mean over the negatives by their weights; those that are the
    sample's own target are left out."""
    masked = scores.log_weight.masked_fill(scores.negative == -math.inf, -math.inf)
    # A sample whose negatives are all its own target has none to learn from.
    weight = torch.softmax(masked, dim=1).nan_to_num(0.0)
    return (losses * weight).sum(dim=1)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "softmax": softmax,
    "bce": bce,
    "gbce": gbce,
    "bpr": bpr,
    "hinge": hinge,
}
