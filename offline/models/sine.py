"""SINE, a few interests out of a pool of many.

Tan et al., "Sparse-Interest Network for Sequential Recommendation", WSDM 2021. Of a pool of learned
prototypes the few that the history is about are activated, and the items are divided among them;
each gives an interest, and these are mixed by how well they fit what the user seems to want next.

Differs from the paper:
- what the user wants next is read off the prototypes with weights of the items themselves, not of
  the mixture of prototypes that each item is: a perceptron per pair of positions would be too dear;
- it and the interests are compared by cosine instead of after a layer norm;
- how far back an item lies is a learned bias instead of an embedding added to the item;
- to each interest a perceptron adds what comes after such items: a mean of them alone finds what is
  like them;
- no penalty on prototypes that are alike.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, normalize

from contract.features import Block
from offline.layers import Following
from offline.models.prefix import PrefixAttention, PrefixModel


class Sine(PrefixModel):
    def __init__(
        self,
        *,
        users: int,
        items: int,
        user_blocks: Sequence[Block],
        item_blocks: Sequence[Block],
        user_numbers: int,
        item_numbers: int,
        history_length: int,
        dim: int = 64,
        prototypes: int = 50,
        active: int = 4,
        sharpness: float = 10.0,
        hidden: int = 256,
        field_dim: int = 16,
        dropout: float = 0.2,
        id_dropout: float = 0.0,
    ) -> None:
        """sharpness: of the mixture of interests; 0 is their mean."""
        super().__init__(
            users,
            items,
            user_blocks,
            item_blocks,
            user_numbers,
            item_numbers,
            history_length,
            dim,
            field_dim,
            dropout,
            id_dropout,
        )
        if not 1 <= active <= prototypes:
            raise ValueError(f"active is {active}, expected 1 to prototypes, {prototypes}")
        self.active, self.sharpness = active, sharpness
        self.prototypes = nn.Parameter(dim**-0.5 * torch.randn(prototypes, dim))
        self.assign = nn.Linear(dim, dim, bias=False)
        self.overview = PrefixAttention(dim, hidden, 2, history_length)
        self.attention = PrefixAttention(dim, hidden, active, history_length)
        self.following = Following(dim, hidden, dropout)

    def pool(self, items: Tensor, visible: Tensor) -> Tensor:
        about, wanted = self.overview(items, visible).unbind(1)  # each (B, Q, W)
        strength, chosen = (about @ items @ self.prototypes.T).topk(self.active, dim=2)
        shares = self._shares(items, chosen)  # (B, K, Q, W)
        weights = shares * self.attention(items, visible)
        found = self.following(weights @ items.unsqueeze(1)).transpose(1, 2)  # (B, Q, K, D)
        concepts = self.prototypes[chosen] * strength.sigmoid().unsqueeze(3)  # (B, Q, K, D)
        mixture = (shares * wanted.unsqueeze(1)).sum(dim=3).transpose(1, 2)  # (B, Q, K)
        intent = (concepts * mixture.unsqueeze(3)).sum(dim=2, keepdim=True)
        fit = (normalize(intent, dim=3) * normalize(found, dim=3)).sum(dim=3)
        chance = (self.sharpness * fit).softmax(dim=2).unsqueeze(3)
        vectors: Tensor = (chance * found).sum(dim=2, keepdim=True)
        return vectors

    def _shares(self, items: Tensor, chosen: Tensor) -> Tensor:
        """items (B, W, D), chosen prototypes (B, Q, K) -> (B, K, Q, W), how each item is divided
        among those of each position."""
        size = items.shape[2:]
        keys = layer_norm(self.prototypes, size) * size[0] ** -0.5
        likeness = keys @ layer_norm(self.assign(items), size).transpose(1, 2)  # (B, prototypes, W)
        first = torch.arange(items.shape[0], device=items.device) * len(keys)
        rows = chosen.transpose(1, 2) + first[:, None, None]
        return embedding(rows, likeness.flatten(0, 1)).softmax(dim=1)
