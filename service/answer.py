"""What a recall answers, and what it took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from contract.arrays import F32
from service.request import SourceName

Source = Literal["model", "session", "fallback"]


# Not frozen: fifty of those take three times as long to make, which is a tenth of a recall.
@dataclass
class Item:
    """Not to be changed."""

    item_id: str
    score: float
    source: Literal["bundle", "overlay"]


def as_sent(scores: F32) -> list[float]:
    """Scores (n,) with as many digits as a float32 needs, half of what Python's floats would have:
    those of one item are alike in every list."""
    found: list[float] = orjson.loads(orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY))
    return found


@dataclass
class Blended(Item):
    """An item of a list that several sources made."""

    recalled_by: list[SourceName]


@dataclass(frozen=True)
class Place:
    """Where an item stood in what a source gave, from 1."""

    rank: int
    score: float


@dataclass(frozen=True)
class Reasons:
    """Why an item is in the list."""

    sources: Mapping[SourceName, Place]
    interest: int | None
    """Which of the K user vectors is nearest, from 0; None where there is none."""
    relevance: float
    """The score on a scale from 0 to 1 over the candidates."""
    similarity: float
    """The largest cosine with an item before it, where diversity was asked for."""
    others: int
    """Items before it of other categories, where the categories count."""
    explored: bool
    """Whether it has a place that is drawn."""


@dataclass
class Explained(Blended):
    explain: Reasons


@dataclass(frozen=True)
class Removed:
    """How many of the first k neighbours the filters removed, each counted where it stands first in
    this order."""

    gone: int
    seen: int
    excluded: int
    category: int


@dataclass(frozen=True)
class Explanation:
    candidates: int
    """Eligible items that the list was made from."""
    removed: Removed


@dataclass
class Stages:
    """Seconds spent in each stage of one recall."""

    encode: float = 0.0
    tower: float = 0.0
    search: float = 0.0
    merge: float = 0.0

    @property
    def total(self) -> float:
        return self.encode + self.tower + self.search + self.merge

    def share(self, recalls: int) -> "Stages":
        """Of each of so many recalls that took this together."""
        parts = self.encode, self.tower, self.search, self.merge
        return Stages(*(part / recalls for part in parts))


@dataclass(frozen=True)
class Answer:
    items: Sequence[Item]
    source: Source
    widened: bool = False
    """Whether the first search left fewer than k, so that the filter had to go into a second."""
    exact: bool = False
    """Whether few rows were eligible, so that all of them were scored and no index was asked."""
    stages: Stages = field(default_factory=Stages)
    explain: Explanation | None = None
