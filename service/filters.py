"""What may not be returned, as a test on candidate rows and as a bitmap for the search."""

from dataclasses import dataclass, replace

import numpy as np

from contract.arrays import I64, Bool
from service.overlay import Overlay


@dataclass(frozen=True, eq=False)
class Filter:
    """The eligible rows of one request: alive, in the category, not blocked.

    `blocked` are rows of bundle or overlay that this request must not return: what the user has
    seen, what the request excludes.
    """

    overlay: Overlay
    blocked: I64
    category: tuple[Bool, Bool] | None = None
    """Which bundle rows (N,) and which overlay slots are in the category asked for."""

    def bundle_rows(self) -> Bool:
        """Bitmap (N,) of the eligible rows of the bundle."""
        allowed = ~self.overlay.dead
        if self.category is not None:
            allowed &= self.category[0]
        allowed[self.blocked[self.blocked < self.overlay.base]] = False
        return allowed

    def overlay_slots(self) -> Bool:
        """Bitmap of the eligible slots of the overlay."""
        allowed = self.overlay.alive.copy()
        if self.category is not None:
            allowed &= self.category[1]
        slots = self.blocked[self.blocked >= self.overlay.base] - self.overlay.base
        allowed[slots] = False
        return allowed

    def searched_rows(self) -> Bool:
        """Bitmap of the eligible ones among the rows that a search finds."""
        bundle = self.bundle_rows()
        return np.concatenate([bundle, self.overlay_slots()]) if self.overlay.appended else bundle

    def keep(self, rows: I64) -> Bool:
        """Which of these rows are eligible, without a bitmap over the catalogue; row -1 is not.
        Only for requests without a category."""
        kept: Bool = (rows >= 0) & self.overlay.lives(rows)
        if len(self.blocked):
            kept &= ~np.isin(rows, self.blocked)
        return kept

    def admits(self, rows: I64) -> Bool:
        """Which of these rows of bundle or overlay are eligible."""
        kept = self.keep(rows)
        if self.category is not None:
            kept &= np.concatenate([self.bundle_rows(), self.overlay_slots()])[rows]
        return kept

    def without(self, rows: I64) -> "Filter":
        """The same, with these rows blocked too."""
        return replace(self, blocked=np.concatenate([self.blocked, rows]))

    def most_removed(self) -> int:
        """At most so many of the rows that a search finds are not eligible; only for requests
        without a category."""
        return len(self.blocked) + self.overlay.gone
