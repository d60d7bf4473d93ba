"""Blocks that several models share. Tensors and flat parameters only."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from contract.features import Block


class FieldEmbedding(nn.Module):
    """Encoded features (n, C) int codes and (n, F) numbers -> (n, width) floats.

    Each block of codes becomes the mean of its embeddings; code 0 of a one-column block is the
    out-of-vocabulary row, of a wider block it is padding.
    """

    def __init__(self, blocks: Sequence[Block], numbers: int, dim: int) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        tables = [nn.Embedding(block.size, dim) for block in blocks]
        for table in tables:
            nn.init.normal_(table.weight, std=0.1)
        self.tables = nn.ModuleList(tables)
        self.width = len(self.blocks) * dim + numbers

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        parts = [numbers]
        for block, module in zip(self.blocks, self.tables, strict=True):
            table = cast(nn.Embedding, module)
            column = codes[:, block.start : block.start + block.width]
            if block.width > 1:
                total = _bag(column, table.weight)
                parts.append(total / (column > 0).sum(1, keepdim=True).clamp(min=1))
            else:
                parts.append(table(column.squeeze(1)))
        return torch.cat(parts, dim=1)


def _bag(codes: Tensor, table: Tensor) -> Tensor:
    """codes (n, w), table (size, dim) -> (n, dim): the sum of the embeddings, code 0 left out."""
    if torch.compiler.is_exporting():
        # ONNX has no bag: the exporter would write a loop.
        return (embedding(codes, table) * (codes > 0).unsqueeze(-1)).sum(1)
    # A bag never writes out (n, w, dim), which is most of the time for long texts.
    return embedding_bag(codes, table, mode="sum", padding_idx=0)


class RecencyPooling(nn.Module):
    """(B, L, H) history, most recent last, and its mask (B, L) -> (B, 2 H): the mean, and a mean
    with one learned weight per position. What was clicked last counts most; how much more is
    learned. Zeros for an empty history.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(-3.0, 0.0, length))

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        recency = self.weights.exp() * mask
        weights = torch.stack([mask, recency], dim=1)  # (B, 2, L)
        weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-6)
        return torch.bmm(weights, history).flatten(1)


def perceptron(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for n, (wide, narrow) in enumerate(pairwise(sizes)):
        if n:
            layers += [nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(wide, narrow))
    return nn.Sequential(*layers)
