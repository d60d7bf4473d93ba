"""Vectors of whole tables out of a trained model, in blocks, without gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.arrays import F32, I64
from offline.data.dataset import Dataset, windows
from offline.models.base import Retriever

BLOCK = 1024


class ItemVectors(NamedTuple):
    items: F32  # (N, D)
    history: F32  # (N, H)


def known_rows(counts: I64) -> I64:
    """counts (N,) training interactions -> identity row of each: r + 1, or 0 (unknown) where an
    item or user never occurred in training and its own embedding is still noise."""
    return np.where(counts > 0, np.arange(1, len(counts) + 1), 0)


@torch.no_grad()
def embed_items(model: Retriever, dataset: Dataset, identity: I64) -> ItemVectors:
    """identity (N,) rows of the model's item identity table."""
    tensor = _tensors_for(model)

    found = ItemVectors(
        np.empty((len(identity), model.dim), np.float32),
        np.empty((len(identity), model.history_dim), np.float32),
    )
    for start in range(0, len(identity), BLOCK):
        part = slice(start, start + BLOCK)
        known = model.item_identity(tensor(identity[part]))
        codes, numbers = tensor(dataset.items.codes[part]), tensor(dataset.items.numbers[part])
        inputs = model.item_inputs(known, codes, numbers)
        found.items[part] = model.item_vectors(inputs).cpu()
        found.history[part] = model.history_vectors(inputs).cpu()
    return found


UserEmbedder = Callable[[I64, I64], F32]


def user_embedder(model: Retriever, dataset: Dataset, identity: I64, history: F32) -> UserEmbedder:
    """A function of user rows (B,) and positions (B,) in the sequences: the user vectors (B, K, D)
    as they were just before those positions."""
    tensor = _tensors_for(model)
    history_table = tensor(history)

    @torch.no_grad()
    def embed(users: I64, positions: I64) -> F32:
        length = dataset.schema.history_length
        rows, mask, kinds = windows(dataset.sequences, users, positions, length)
        real = tensor(mask.astype(np.float32))
        vectors = model.user_vectors(
            model.user_identity(tensor(identity[users])),
            tensor(dataset.users.codes[users]),
            tensor(dataset.users.numbers[users]),
            history_table[tensor(rows).long()] * real.unsqueeze(2),
            real,
            tensor(kinds).int(),
        )
        return vectors.cpu().numpy()

    return embed


def _tensors_for(model: Retriever) -> Callable[[npt.NDArray[Any]], Tensor]:
    """From an array to a tensor on the device that the model is on."""
    device = model.item_identity.weight.device
    return lambda array: torch.from_numpy(array).to(device)
