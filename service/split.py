"""Which of several variants a user gets: always the same one, by weight.

Weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA
2005): each variant draws a time from the hash of its name and the user id, exponential with its
weight as the rate, and the earliest wins. A draw depends on nothing else, so a weight that grows
takes users from the others and moves none between them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from contract.store import NAME

WORD = 2**64
HEAVIEST = 1_000_000


@dataclass(frozen=True)
class Split:
    """Variants, the main one first, each with its weight: a whole number. One of weight 0 gets no
    users and can be pinned."""

    weights: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        if len(self.weights) == 1:
            return self.main
        return ",".join(f"{name}:{weight}" for name, weight in self.weights)

    @property
    def main(self) -> str:
        return self.weights[0][0]

    @cached_property
    def shares(self) -> Mapping[str, float]:
        """Name -> share of all users, in order."""
        total = sum(weight for _, weight in self.weights)
        return {name: weight / total for name, weight in self.weights}

    def variant(self, user_id: str) -> str:
        if len(self.weights) == 1:
            return self.main
        drawn = [(_draw(name, user_id) / weight, name) for name, weight in self.weights if weight]
        return min(drawn)[1]


def parse_split(text: str) -> Split:
    """`live`, or `live:9,challenger:1`; a weight that is left out is 1. Raises ValueError."""
    weights = tuple(_weighted(part.strip()) for part in text.split(","))
    names = [name for name, _ in weights]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"channel '{name}' stands twice")
    if not weights[0][1]:
        raise ValueError(f"the main channel '{names[0]}' needs a weight of at least 1")
    return Split(weights)


def _weighted(part: str) -> tuple[str, int]:
    name, colon, weight = part.partition(":")
    if not NAME.fullmatch(name):
        raise ValueError(f"channel '{name}': expected letters, digits, '.', '_' and '-'")
    if not colon:
        return name, 1
    if not (weight.isascii() and weight.isdecimal() and int(weight) <= HEAVIEST):
        raise ValueError(
            f"channel '{name}' has weight '{weight}': expected a whole number up to {HEAVIEST:,}, "
            "as in live:9,challenger:1"
        )
    return name, int(weight)


def _draw(name: str, user_id: str) -> float:
    """Exponential with rate 1."""
    # Names hold no zero byte, so no two pairs of name and user make the same text.
    digest = blake2b(f"{name}\0{user_id}".encode(), digest_size=8).digest()
    return -math.log((int.from_bytes(digest) + 0.5) / WORD)
