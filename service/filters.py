"""What may be returned: as a test on candidate rows, as a bitmap for the search, or as rows."""

from dataclasses import dataclass, replace

import numpy as np

from contract.arrays import I64, Bool
from service.conditions import AnyOf
from service.overlay import Overlay
from service.request import Recall
from service.selection import Selection
from service.state import State


@dataclass(frozen=True, eq=False)
class Filter:
    """The eligible rows of one request: alive, selected, not blocked.

    `blocked` are rows of bundle or overlay that this request must not return: what the user has
    seen, what the request excludes.
    """

    overlay: Overlay
    blocked: I64
    selection: Selection | None = None
    """The bundle rows that the request is for; None: all."""
    selected_slots: Bool | None = None
    """Which overlay slots (S,) the request is for; None: all."""

    def bundle_rows(self) -> Bool:
        """Bitmap (N,) of the eligible rows of the bundle."""
        allowed = ~self.overlay.dead
        if self.selection is not None:
            allowed &= self.selection.marked(self.overlay.base)
        allowed[self.blocked[self.blocked < self.overlay.base]] = False
        return allowed

    def overlay_slots(self) -> Bool:
        """Bitmap of the eligible slots of the overlay."""
        allowed = self.overlay.alive.copy()
        if self.selected_slots is not None:
            allowed &= self.selected_slots
        slots = self.blocked[self.blocked >= self.overlay.base] - self.overlay.base
        allowed[slots] = False
        return allowed

    def selected_rows(self) -> Bool | None:
        """Bitmap of those that the request is for, eligible or not, among the rows that a search
        finds; None: all. Not to be changed."""
        if self.selection is None or self.selected_slots is None:
            return None
        return self._searched(self.selection.marked(self.overlay.base), self.selected_slots)

    def searched_rows(self) -> Bool:
        """Bitmap of the eligible ones among the rows that a search finds."""
        return self._searched(self.bundle_rows(), self.overlay_slots())

    def keep(self, rows: I64) -> Bool:
        """Which of these rows, all selected, are eligible, without a bitmap over the catalogue; row
        -1 is not."""
        kept: Bool = (rows >= 0) & self.overlay.lives(rows)
        if len(self.blocked):
            kept &= ~self.overlay.marks.among(rows, self.blocked)
        return kept

    def blocked_slots(self) -> int:
        """How many slots of the overlay are blocked, at most."""
        return int(np.count_nonzero(self.blocked >= self.overlay.base))

    def admits(self, rows: I64) -> Bool:
        """Which of these rows of bundle or overlay are eligible."""
        kept = self.keep(rows)
        if self.selection is not None:
            kept &= np.concatenate([self.bundle_rows(), self.overlay_slots()])[rows]
        return kept

    def without(self, rows: I64) -> "Filter":
        """The same, with these rows blocked too."""
        return replace(self, blocked=np.concatenate([self.blocked, rows]))

    def most_removed(self) -> int:
        """At most so many of the selected rows that a search finds are not eligible."""
        return len(self.blocked) + self.overlay.gone

    def _searched(self, bundle_rows: Bool, slots: Bool) -> Bool:
        return np.concatenate([bundle_rows, slots]) if self.overlay.appended else bundle_rows


def filter_of(state: State, request: Recall, seen: I64) -> Filter:
    """What `request` may be answered with, asked by someone who has seen the rows `seen`."""
    blocked = seen if request.exclude_seen else np.empty(0, np.int64)
    if request.exclude:
        blocked = np.concatenate([blocked, state.overlay.rows(request.exclude)])
    return Filter(state.overlay, blocked, *_select(state, request))


def _select(state: State, request: Recall) -> tuple[Selection | None, Bool | None]:
    overlay, selector = state.overlay, state.snapshot.selector
    conditions = request.conditions
    if request.category is not None:
        conditions = (*conditions, AnyOf(None, (request.category,)))
    if not conditions and request.include is None:
        return None, None
    slots = overlay.columns.meet(conditions, overlay.slots)
    if request.include is None:
        return selector.select(conditions), slots
    rows = np.unique(overlay.rows(request.include))
    border = int(np.searchsorted(rows, overlay.base))
    named = np.zeros(overlay.slots, np.bool_)
    named[rows[border:] - overlay.base] = True
    return selector.among(rows[:border], conditions), slots & named
