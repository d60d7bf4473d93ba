"""What a client may ask of a recall."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.conditions import Condition


@dataclass(frozen=True)
class Recall:
    k: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    """Item ids, oldest first, instead of what the service knows of the user."""
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
