"""What an event counts as, by its kind: one mapping for service, training and compaction."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, RootModel

from contract.arrays import U8

HISTORY, SEEN = 1, 2
"""Bits of what an event counts as: input to the user tower, and not to be recommended again."""
COUNTS = HISTORY | SEEN
_SHIFT = 2
"""Above these bits stands which of the histories an event belongs to."""
MOST = 16
"""Kinds that have a history of their own, at most."""

Meaning = Literal["both", "history", "seen", "nothing"]

BITS: dict[Meaning, int] = {"both": COUNTS, "history": HISTORY, "seen": SEEN, "nothing": 0}


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("expected each kind once")
    return names


Histories = Annotated[tuple[str, ...], Field(max_length=MOST), AfterValidator(_distinct)]
"""The kinds whose items the user tower also reads by themselves, as histories 1, 2, .. beside the
whole one. An event of another kind, or of which none is known, is of history 0, the whole alone."""


class Kinds(RootModel[dict[str, Meaning]]):
    """Kind -> what its events count as; both, where it is not named."""

    model_config = ConfigDict(frozen=True)

    root: dict[str, Meaning] = {}

    def flags(self, kind: str | None, histories: Sequence[str] = ()) -> int:
        """What an event of this kind counts as, and which history it belongs to. None: the kind is
        not known."""
        bits = BITS[self.root.get(kind, "both")] if kind is not None else BITS["both"]
        if kind in histories and bits & HISTORY:
            bits |= (histories.index(kind) + 1) << _SHIFT
        return bits


def history_of(flags: U8) -> U8:
    """Which of the histories each belongs to."""
    return flags >> np.uint8(_SHIFT)


def flags_below(histories: Sequence[str]) -> int:
    """What all flags are less than."""
    return (len(histories) + 1) << _SHIFT
