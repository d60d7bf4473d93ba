"""Identities out of content, for a model whose items are known by id alone.

Training gives each item that it sees an identity of its own. What an item that comes later would
have been given is guessed from its features, as the identities of the others go with theirs.
"""

import copy
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from contract.arrays import I64
from contract.features import Encoded
from offline.layers import Regressor
from offline.models.base import Retriever

BATCH, RATE, DECAY = 256, 2e-3, 1e-2
EPOCHS, PATIENCE = 200, 8
HELD_OUT = 10
"""One in so many items is kept from the fit, to tell when it has learned what goes for all."""


def fit_regressor(model: Retriever, items: Encoded, seen: I64, seed: int) -> None:
    """Fit the regressor of a trained model, where it has one and features to read, to the
    identities of the rows (n,) of the catalogue that training saw."""
    regressor = getattr(model, "regressor", None)
    if regressor is None or not regressor.tower:
        return
    torch.manual_seed(seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(seen))
    kept = len(order) - len(order) // HELD_OUT
    identities = model.item_identity.weight.detach()[1:]
    mean, deviation = identities[order].mean(0), identities[order].std() + 1e-6
    _Fit(regressor, (identities - mean) / deviation, items).run(order[:kept], order[kept:])
    last = cast(nn.Linear, regressor.tower[-1])
    with torch.no_grad():
        last.weight *= deviation
        last.bias.mul_(deviation).add_(mean)


class _Fit:
    def __init__(self, regressor: Regressor, wanted: Tensor, items: Encoded) -> None:
        """wanted (N, E): of every row of the catalogue."""
        self.regressor, self.wanted = regressor, wanted
        self.codes, self.numbers = map(torch.from_numpy, items)
        self.adam = torch.optim.AdamW(regressor.parameters(), lr=RATE, weight_decay=DECAY)

    def run(self, kept: Tensor, held: Tensor) -> None:
        """Fit to the rows `kept` for as long as the rows `held` gain by it."""
        best, waited = self._validate(held), 0
        state = copy.deepcopy(self.regressor.state_dict())
        for _ in range(EPOCHS):
            self._epoch(kept)
            loss = self._validate(held)
            waited += 1
            if loss < best:
                best, waited = loss, 0
                state = copy.deepcopy(self.regressor.state_dict())
            if waited == PATIENCE:
                break
        self.regressor.load_state_dict(state)

    def _epoch(self, rows: Tensor) -> None:
        self.regressor.train()
        for part in torch.split(rows[torch.randperm(len(rows))], BATCH):
            self.adam.zero_grad()
            torch.autograd.backward(self._loss(part))
            self.adam.step()

    @torch.no_grad()
    def _validate(self, rows: Tensor) -> float:
        self.regressor.eval()
        return float(self._loss(rows)) if len(rows) else 0.0

    def _loss(self, rows: Tensor) -> Tensor:
        guess = self.regressor.guess(self.codes[rows], self.numbers[rows])
        return mse_loss(guess, self.wanted[rows])
