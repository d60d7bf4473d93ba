"""The variants of a service: a channel each, with a bundle, an overlay and swaps of its own.

All of them apply the same journal. A user belongs to one of them by hash; a request may pin one.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from contract.errors import MalformedRequest
from service.live import Live
from service.split import Split
from service.swap import Swapper

log = logging.getLogger("tandem.variants")


@dataclass(frozen=True, eq=False)
class Variant:
    live: Live
    swapper: Swapper
    stands_in_for: str | None = None
    """Whose users it answers, where that is not its own name."""

    @property
    def name(self) -> str:
        return self.live.variant


class Variants:
    def __init__(self, split: Split, table: Mapping[str, Variant]) -> None:
        """`table` has a variant for each name of the split."""
        self._split, self._table = split, table
        self.main = table[split.main]
        self._stand_ins = {name: replace(self.main, stands_in_for=name) for name in table}
        self._missed = set[str]()

    def __iter__(self) -> Iterator[Variant]:
        return iter(self._table.values())

    @property
    def shares(self) -> Mapping[str, float]:
        """Name -> share of all users."""
        return self._split.shares

    def named(self, name: str) -> Variant:
        """Raises MalformedRequest for a name that is not served."""
        if name not in self._table:
            known = ", ".join(self._table)
            raise MalformedRequest(f"variant '{name}': not served here; there are {known}")
        return self._table[name]

    def of(self, user_id: str | None) -> Variant:
        """The one that a user belongs to; the main one without a user id, and in place of one that
        has no bundle yet."""
        if user_id is None:
            return self.main
        variant = self._table[self._split.variant(user_id)]
        if variant is self.main or variant.live.version is not None:
            return variant
        self._warn(variant)
        return self._stand_ins[variant.name]

    def loaded(self) -> list[Variant]:
        """Those that have a bundle. Raises NotReady when the main one has none."""
        self.main.live.state()
        return [variant for variant in self if variant.live.version is not None]

    def _warn(self, variant: Variant) -> None:
        """Once."""
        if variant.name not in self._missed:
            self._missed.add(variant.name)
            log.warning(
                "variant '%s' has no bundle: '%s' answers its users; publish to the channel",
                variant.name,
                self.main.name,
            )
