"""What a client may ask of a recall."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from service.conditions import Condition

SourceName = Literal["model", "similar", "new", "popular"]
Reserve = Literal["pool", "new"]


@dataclass(frozen=True)
class Blend:
    """How the list is put together where it is not just the best k of the model."""

    sources: Mapping[SourceName, float] = field(default_factory=lambda: {"model": 1.0})
    """Where candidates come from, and what each weighs."""
    diversity: float = 0.0
    """From 0, relevance alone, to 1, dissimilarity alone."""
    category_diversity: float = 0.0
    """What each item of another category that is already in the list adds to an item's worth."""
    max_per_category: int | None = None
    explore: float = 0.0
    """The share of the places that is not given to the best."""
    explore_from: Reserve = "pool"
    """These places go to what comes behind the best, or to new items."""
    temperature: float = 1.0
    seed: int | None = None
    """Of what is drawn; None: follows from the request and what was written."""
    explain: bool = False


@dataclass(frozen=True)
class Recall:
    k: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    """Item ids, oldest first, instead of what the service knows of the user."""
    kinds: Sequence[str | None] = ()
    """By what kind of event each item of `history` was touched; (): nothing is said of it."""
    features: Mapping[str, Any] | None = None
    """The profile, instead of the known one."""
    exclude: Sequence[str] = ()
    exclude_seen: bool = True
    """Leave out what the user has touched and what `history` names."""
    include: Sequence[str] | None = None
    """The only item ids that may be answered; None: all."""
    category: str | None = None
    """A tag of any attribute, which the items have."""
    conditions: tuple[Condition, ...] = ()
    """The items meet all of them."""
    blend: Blend | None = None
    """None: the best k of the model."""
