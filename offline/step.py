"""One optimiser step: from a batch to a loss to new weights."""

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

from contract.arrays import I64
from contract.errors import TrainingError
from offline.batches import Batch
from offline.data.dataset import Dataset
from offline.models.base import Retriever
from offline.negatives import Negatives, Sampler
from offline.objectives import Objective, Scores
from offline.optimizer import Optimizer, Rows

SCORES = 2**20
"""Scores that are worked on at a time."""


class Distinct:
    """Rows of a table, each once and ascending, and the places of any of them."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._place, self._device = np.zeros(size, np.int64), device

    def rows(self, *groups: I64) -> I64:
        """By marking them: far cheaper than sorting tens of thousands of numbers."""
        marked = np.zeros(len(self._place), np.bool_)
        for rows in groups:
            marked[rows] = True
        distinct = np.flatnonzero(marked)
        self._place[distinct] = np.arange(len(distinct))
        return distinct

    def places(self, rows: I64) -> Tensor:
        """Of rows among those that were given last."""
        return torch.from_numpy(self._place[rows]).to(self._device)


class Step:
    def __init__(
        self,
        model: Retriever,
        objective: Objective,
        sampler: Sampler,
        dataset: Dataset,
        optimizer: Optimizer,
        clip: float,
    ) -> None:
        self.model, self.objective, self.sampler = model, objective, sampler
        self.module = cast(nn.Module, model)
        self.optimizer, self.clip = optimizer, clip
        self.item_rows, self.user_rows = optimizer.rows
        self.id_dropout = float(getattr(model, "id_dropout", 0.0))
        self.device = model.item_identity.weight.device
        self.item_codes, self.item_numbers, self.user_codes, self.user_numbers = (
            torch.from_numpy(array).to(self.device) for array in (*dataset.items, *dataset.users)
        )
        self.items = int(np.count_nonzero(dataset.counts(dataset.split().train_end)))
        self._read, self._searched = (
            Distinct(len(dataset.item_ids), self.device) for _ in range(2)
        )

    def __call__(
        self, batch: Batch, rate: float, generator: np.random.Generator
    ) -> tuple[float, int]:
        """The loss, and the number of samples that it is the mean of."""
        targets = batch.target[batch.wanted].numpy().astype(np.int64)
        value = self._backward(batch, targets, self.sampler.draw(targets, generator))
        norm = self.optimizer.collect(self.clip)
        # A gradient that is not finite spoils the weights one step before the loss shows it.
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingError(
                f"loss is {value}, its gradient {norm}, expected finite numbers; "
                "lower training.learning_rate or raise the temperature"
            )
        self.optimizer.step(rate)
        return value, len(targets)

    def _backward(self, batch: Batch, targets: I64, negatives: Negatives) -> float:
        """The gradients of the loss, and its value.

        Scores against the negatives are by far the largest tensor of a step. They are made, used
        and forgotten for some samples at a time, so that they stay in the processor's cache.
        """
        searched = self._searched.rows(targets, negatives.rows)
        read = self._read.rows(batch.history.numpy(), searched)
        inputs = self._inputs(torch.from_numpy(read).to(self.device))
        # Histories name far more items than are told apart, and only these need a tower.
        items = self.model.item_vectors(inputs[self._read.places(searched)])
        users = self._users(batch, self.model.history_vectors(inputs))  # (T, K, D)
        ends = users.detach().requires_grad_(), items.detach().requires_grad_()
        size = max(1, SCORES // (len(negatives.rows) * users.shape[1]))
        value = 0.0
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            scores = self._scores(ends[0][part], ends[1], targets[part], negatives, part)
            loss = self.objective.loss(scores).sum() / len(targets)
            torch.autograd.backward(loss)
            value += float(loss.detach())
        torch.autograd.backward([users, items], [ends[0].grad, ends[1].grad])
        return value

    def _scores(
        self, users: Tensor, items: Tensor, targets: I64, negatives: Negatives, part: slice
    ) -> Scores:
        """users (t, K, D), items (M, D), targets (t,): `part` of the samples of the step."""
        users = users / self.objective.temperature
        own, others = (items[self._searched.places(at)] for at in (targets, negatives.rows))
        positive = torch.einsum("tkd,td->tk", users, own).max(1).values
        negative = best_scores(users, others)
        log_weight = self._float(negatives.log_weight).unsqueeze(0)
        self._mask(negative, targets, negatives.rows)
        if 0 < self.sampler.keep < negative.shape[1]:
            negative, at = negative.topk(self.sampler.keep, dim=1)
            log_weight = log_weight[0, at]
        return Scores(
            positive=positive,
            negative=negative,
            log_weight=log_weight,
            target_log_weight=self._float(negatives.target_log_weight[part]),
            items=self.items,
        )

    def _inputs(self, rows: Tensor) -> Tensor:
        """Distinct rows (M,) -> what their vectors are made of (M, I)."""
        identity = self._identity(self.item_rows, rows)
        return self.model.item_inputs(identity, self.item_codes[rows], self.item_numbers[rows])

    def _users(self, batch: Batch, table: Tensor) -> Tensor:
        """The user vectors (T, K, D) of the samples of a batch."""
        distinct, place = np.unique(batch.users.numpy(), return_inverse=True)
        identity = self._identity(self.user_rows, torch.from_numpy(distinct).to(self.device))
        rows, mask = batch.users.to(self.device), batch.mask.to(self.device)
        # A row of zeros for what is masked: far less to write than the product with the mask.
        at = self._read.places(batch.history.numpy()).masked_fill(~mask, len(table))
        history = embedding(at, pad(table, (0, 0, 0, 1)))
        inputs = (
            identity[torch.from_numpy(place).to(self.device)],
            self.user_codes[rows],
            self.user_numbers[rows],
            history,
            mask.float(),
            batch.kinds.to(self.device).int(),
        )
        wanted = batch.wanted.to(self.device)
        last = wanted.shape[1] - int(wanted.any(0).nonzero()[0])
        if last > 1:
            return self.model.sequence_vectors(*inputs, last=last)[wanted[:, -last:]]
        # Pieces of one sample are windows, read as the service reads them.
        return self.model.user_vectors(*inputs)[wanted[:, -1]]

    def _identity(self, rows: Rows, at: Tensor) -> Tensor:
        """Identity rows of the distinct entities `at`, some of them dropped: these learn what an
        unknown entity is like."""
        known = rows.gather(torch.cat([at.new_zeros(1), at + 1]))
        places = torch.arange(1, len(at) + 1, device=self.device)
        dropped = torch.rand(len(at), device=self.device) < self.id_dropout
        return embedding(places.masked_fill(dropped, 0), known)

    def _mask(self, negative: Tensor, targets: I64, rows: I64) -> None:
        """-inf where a negative (its row among the ascending `rows`) is the sample's own target."""
        at = np.minimum(np.searchsorted(rows, targets), len(rows) - 1)
        hit = np.flatnonzero(rows[at] == targets)
        places = (torch.from_numpy(hit).to(self.device), torch.from_numpy(at[hit]).to(self.device))
        negative.index_put_(places, negative.new_tensor(-math.inf))

    def _float(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def best_scores(users: Tensor, items: Tensor) -> Tensor:
    """users (T, K, D), items (S, D) -> (T, S): an item's score is that of the nearest interest, as
    it is to the search."""
    if users.shape[1] == 1:
        return users[:, 0] @ items.T
    every = users.flatten(0, 1) @ items.T
    return every.view(*users.shape[:2], -1).max(1).values
