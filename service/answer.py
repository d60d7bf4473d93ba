"""What a recall answers, and what it took."""

from dataclasses import dataclass, field
from typing import Literal

Source = Literal["model", "session", "fallback"]


@dataclass(frozen=True)
class Item:
    item_id: str
    score: float
    source: Literal["bundle", "overlay"]


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


@dataclass(frozen=True)
class Answer:
    items: list[Item]
    source: Source
    widened: bool = False
    """Whether the first search left fewer than k, so that the filter had to go into a second."""
    exact: bool = False
    """Whether few rows were eligible, so that all of them were scored and no index was asked."""
    stages: Stages = field(default_factory=Stages)
