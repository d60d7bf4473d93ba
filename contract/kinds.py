"""What an event counts as, by its kind: one mapping for service, training and compaction."""

from typing import Literal

from pydantic import ConfigDict, RootModel

HISTORY, SEEN = 1, 2
"""Bits of what an event counts as: input to the user tower, and not to be recommended again."""

Meaning = Literal["both", "history", "seen", "nothing"]

BITS: dict[Meaning, int] = {"both": HISTORY | SEEN, "history": HISTORY, "seen": SEEN, "nothing": 0}


class Kinds(RootModel[dict[str, Meaning]]):
    """Kind -> what its events count as; both, where it is not named."""

    model_config = ConfigDict(frozen=True)

    root: dict[str, Meaning] = {}

    def bits(self, kind: str | None) -> int:
        """None: the kind is not known."""
        return BITS[self.root.get(kind, "both")] if kind is not None else BITS["both"]
