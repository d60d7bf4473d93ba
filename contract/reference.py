"""What answers looked like when a bundle was published, and how an answer is measured: once, for
publisher and service.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from contract.arrays import F32

DEPTH = 10
"""So many items of an answer are looked at, however many there are."""
DECILES = 10

Signal = Literal["norm", "best", "tenth"]
Edges = Annotated[tuple[FiniteFloat, ...], Field(min_length=DECILES - 1, max_length=DECILES - 1)]


class Reference(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    deciles: dict[Signal, Edges]
    """Of each signal, what a tenth, two tenths, .. of the answers were below. One that hardly
    varied is not there."""
    overlap: Annotated[float, Field(ge=0, le=1)]
    """The share of their first DEPTH items that the answers to two users had in common."""


def signals(vectors: F32, scores: F32) -> dict[Signal, float]:
    """Of an answer to the user vectors (K, D) whose items have these scores, descending, at least
    DEPTH of them."""
    return {
        "norm": float(np.linalg.norm(vectors, axis=1).mean()),
        "best": float(scores[0]),
        "tenth": float(scores[DEPTH - 1]),
    }


def decile(edges: Sequence[float], value: float) -> int:
    """0 to 9."""
    return int(np.searchsorted(edges, value))
