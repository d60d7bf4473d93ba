"""What a client may ask of a recall."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recall:
    k: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    """Item ids, oldest first, instead of what the service knows of the user."""
    features: Mapping[str, Any] | None = None
    """The profile, instead of the known one."""
    exclude: Sequence[str] = ()
    category: str | None = None
