"""Blocks that several models share. Tensors and flat parameters only."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag, gelu

from contract.features import Block


class FieldEmbedding(nn.Module):
    """Encoded features (n, C) int codes and (n, F) numbers -> (n, width) floats.

    Each block of codes becomes the mean of its embeddings; code 0 of a one-column block is the
    out-of-vocabulary row, of a wider block it is padding. Both are zeros: training need not meet a
    value that is missing or unknown, and then nothing else would be known of it either.
    """

    def __init__(self, blocks: Sequence[Block], numbers: int, dim: int) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        tables = [nn.Embedding(block.size, dim) for block in blocks]
        for table in tables:
            nn.init.normal_(table.weight, std=0.1)
            nn.init.zeros_(table.weight[0])
        self.tables = nn.ModuleList(tables)
        self.width = len(self.blocks) * dim + numbers

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        parts = [numbers]
        for field, block in enumerate(self.blocks):
            column = codes[:, block.start : block.start + block.width]
            if block.width > 1:
                parts.append(self.several(field, column))
            else:
                parts.append(embedding(column.squeeze(1), self.table(field)))
        return torch.cat(parts, dim=1)

    def several(self, field: int, codes: Tensor) -> Tensor:
        """The codes (n, w) of one entity together, 0 for none -> (n, dim)."""
        return bag(codes, self.table(field)) / (codes > 0).sum(1, keepdim=True).clamp(min=1)

    def table(self, field: int) -> Tensor:
        """(size, dim)"""
        return cast(nn.Embedding, self.tables[field]).weight


def bag(codes: Tensor, table: Tensor) -> Tensor:
    """codes (n, w), table (size, dim) -> (n, dim): the sum of the embeddings, code 0 left out."""
    real = codes > 0
    if torch.compiler.is_exporting():
        # ONNX has no bag: the exporter would write a loop.
        return (embedding(codes, table) * real.unsqueeze(-1)).sum(1)
    # A bag never writes out (n, w, dim), and most of a wide block is padding.
    starts = real.sum(1).cumsum(0)
    starts = torch.cat([starts.new_zeros(1), starts[:-1]])
    return embedding_bag(codes[real], table, starts.to(codes.dtype), mode="sum")


class Pooling(nn.Module):
    """The last `length` items as one or several weighted means; zeros for an empty history."""

    means = 1

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def steps(self, mask: Tensor) -> Tensor:
        """(means, length): the weight of an item by its steps back, the most recent one last."""
        return mask.new_ones(1, self.length)

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        """(B, W, H), most recent last, and its mask (B, W) -> (B, means H)."""
        if history.shape[1] > self.length:  # the way back of a slice writes all of it once more
            history, mask = history[:, -self.length :], mask[:, -self.length :]
        steps = self.steps(mask)[:, -mask.shape[1] :]
        weights = steps * mask.unsqueeze(1)  # (B, means, W)
        weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-6)
        return torch.bmm(weights, history).flatten(1)

    def along(self, history: Tensor, mask: Tensor, last: int) -> Tensor:
        """(B, W, H), zeros where the mask (B, W) is -> (B, last, means H), as each of the last
        positions is the end of the history.

        The weights depend on the distance alone, so one (last, W) matrix serves all sequences.
        """
        columns = torch.arange(history.shape[1], device=history.device)
        back = columns[-last:].unsqueeze(1) - columns  # steps from the position back to the item
        inside = (back >= 0) & (back < self.length)
        at = self.length - 1 - back.clamp(0, self.length - 1)
        weights = self.steps(mask)[:, at] * inside  # (means, last, W)
        total = (weights @ mask.T).clamp(min=1e-6)  # (means, last, B)
        pooled = torch.einsum("pwv,bvh->bwph", weights, history)
        return (pooled / total.permute(2, 1, 0).unsqueeze(3)).flatten(2)


class RecencyPooling(Pooling):
    """The mean, and a mean with one learned weight per step back. What was clicked last counts
    most; how much more is learned."""

    means = 2

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.weights = nn.Parameter(torch.linspace(-3.0, 0.0, length))

    def steps(self, mask: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(self.weights), self.weights.exp()])


class SeparatePooling(nn.Module):
    """The whole history and, beside it, the items of each of some kinds by themselves: each pooled
    with weights of recency of its own."""

    def __init__(self, length: int, histories: int) -> None:
        super().__init__()
        self.poolings = nn.ModuleList(RecencyPooling(length) for _ in range(1 + histories))
        self.means = len(self.poolings) * RecencyPooling.means

    def forward(self, history: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:
        """(B, W, H), most recent last, its mask and the number of each item's history (B, W) ->
        (B, means H): the whole, then histories 1, 2, .."""
        parts = zip(self.poolings, self._parts(history, mask, kinds), strict=True)
        return torch.cat([pooling(*part) for pooling, part in parts], dim=1)

    def along(self, history: Tensor, mask: Tensor, kinds: Tensor, last: int) -> Tensor:
        """(B, W, H), zeros where the mask (B, W) is -> (B, last, means H), as each of the last
        positions is the end of the history."""
        parts = zip(self.poolings, self._parts(history, mask, kinds), strict=True)
        pooled = [cast(RecencyPooling, pooling).along(*part, last) for pooling, part in parts]
        return torch.cat(pooled, dim=2)

    def _parts(
        self, history: Tensor, mask: Tensor, kinds: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The items of each history in their places, and its mask."""
        yield history, mask
        for number in range(1, len(self.poolings)):
            own = mask * (kinds == number)
            yield history * own.unsqueeze(2), own


def perceptron(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU between them."""
    layers: list[nn.Module] = []
    for n, (wide, narrow) in enumerate(pairwise(sizes)):
        if n:
            layers += [nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(wide, narrow))
    return nn.Sequential(*layers)


class Following(nn.Module):
    """What comes after an interest, added to it. A mean of the items that were read lies near items
    like them; of items that are searched by the vectors they are read by, it finds no others."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.wide, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, interests: Tensor) -> Tensor:
        """(.., D) -> (.., D)"""
        interests = self.norm(interests)
        following: Tensor = self.narrow(self.dropout(gelu(self.wide(interests))))
        return interests + following


class Projection(nn.Module):
    """Encoded features -> (n, dim); zeros where there are no features."""

    def __init__(self, fields: FieldEmbedding, dim: int) -> None:
        super().__init__()
        self.dim, self.fields = dim, fields
        self.linear = nn.Linear(fields.width, dim) if fields.width else None

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        if self.linear is None:
            # Not len(): the exporter would take the size of its example for a constant.
            return numbers.new_zeros(numbers.shape[0], self.dim)
        return cast(Tensor, self.linear(self.fields(codes, numbers)))


class Regressor(nn.Module):
    """An item's identity as its content would have it, for an item that training did not see: its
    row of the identity table is row 0, all zeros. Zeros until it is fitted (`offline.regressor`),
    and where there are no features."""

    field_dim, hidden, dropout = 32, 256, 0.2

    def __init__(self, identities: nn.Embedding, blocks: Sequence[Block], numbers: int) -> None:
        super().__init__()
        nn.init.zeros_(identities.weight[0])
        self.fields = FieldEmbedding(blocks, numbers, self.field_dim)
        self.tower = nn.Sequential()
        if self.fields.width:
            sizes = [self.fields.width, self.hidden, identities.embedding_dim]
            self.tower = perceptron(sizes, self.dropout)
            last = cast(nn.Linear, self.tower[-1])
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, identity: Tensor, codes: Tensor, numbers: Tensor) -> Tensor:
        """identity (n, E), codes (n, C), numbers (n, F) -> (n, E): known ones as they are."""
        # Training meets no unknown item.
        if self.training or not self.tower:
            return identity
        known = (identity != 0).any(1, keepdim=True)
        return torch.where(known, identity, self.guess(codes, numbers))

    def guess(self, codes: Tensor, numbers: Tensor) -> Tensor:
        return cast(Tensor, self.tower(self.fields(codes, numbers)))


def causal_mask(mask: Tensor) -> Tensor:
    """mask (B, W) of real items -> (B, 1, W, W), True where a position may look: at itself, and at
    real items before it."""
    width = mask.shape[1]
    ones = torch.ones(width, width, dtype=torch.bool, device=mask.device)
    real = (mask > 0)[:, None, None, :]
    return (real & ones.tril()) | ones.diag().diag()


class Recency(nn.Module):
    """A learned bias of each of several heads for each step back; it means the same in histories of
    all lengths.

    At first heads forget at speeds of their own: of four, the first halves the weight of an item
    every 2 steps, the last every 128; one alone every 16. From zeros, what is recent is learned
    late or never (docs/experiments.md).
    """

    def __init__(self, heads: int, length: int) -> None:
        super().__init__()
        half_lives = 2 ** (8 / heads * (torch.arange(heads) + 0.5))
        slopes = -math.log(2) / half_lives.unsqueeze(1)
        self.bias = nn.Parameter(slopes * torch.arange(length))

    def forward(self, visible: Tensor) -> Tensor:
        """visible (..., Q, W) -> (heads, Q, W)"""
        return self.bias[:, steps_back(visible).clamp(0, self.bias.shape[1] - 1)]

    def weights(self, visible: Tensor) -> Tensor:
        """visible (B, Q, W) -> (B, heads, Q, W), what the bias makes of 1; 0 for what is not
        seen."""
        bias: Tensor = self(visible)
        return visible.unsqueeze(1) * bias.exp()


def steps_back(visible: Tensor) -> Tensor:
    """(..., Q, W) -> (Q, W), from each of the last Q positions to each column; negative ahead."""
    queries, width = visible.shape[-2:]
    columns = torch.arange(width, device=visible.device)
    return columns[-queries:].unsqueeze(1) - columns
