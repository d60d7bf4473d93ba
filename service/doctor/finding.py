"""What a doctor finds."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    advice: str = ""
    """What to do, or what a repair does."""
    trouble: bool = False
    cure: Callable[[], str] | None = None
    """Does what the advice says; returns what was done, or why it is not to be done any more."""
