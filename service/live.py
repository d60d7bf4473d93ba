"""The one mutable reference of a variant: the state that answers now, kept up with the journal."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from contract.errors import BundleError, JournalError, NotReady, NotYetVisible
from contract.journal import GroupCommit, Journal, Record
from service.metrics import Metrics
from service.state import State

CHUNK = 2000
"""Records applied at a time: bounds the memory of one call of the item tower."""


@dataclass(frozen=True)
class Refusal:
    """A bundle that was not taken, and why, as clients may know it."""

    version: str
    reason: str


@dataclass(frozen=True, eq=False)
class Loaded:
    """A state, the journal position that it includes, and when it came to be."""

    state: State
    seq: int
    at: datetime


class Live:
    """Used by one thread: the worker's event loop. A request calls `state()` once and works on what
    it got; between requests the reference may be replaced."""

    def __init__(
        self, variant: str, journal: Journal, commits: GroupCommit, metrics: Metrics
    ) -> None:
        """`variant` is the name of the channel that is followed; no one else may read through this
        journal object. `commits` are those of this worker."""
        self.variant = variant
        metrics.begin(variant)
        self._journal, self._commits, self._metrics = journal, commits, metrics
        # Moved at every write.
        self._reachable = metrics.journal_reachable.labels(variant)
        gauges = metrics.journal_seq, metrics.overlay_items, metrics.overlay_refused
        self._journal_seq, self._overlay_items, self._overlay_refused = (
            gauge.labels(variant) for gauge in gauges
        )
        self._loaded: Loaded | None = None
        self._behind = False
        self._shown: tuple[str, str, str, str] | None = None
        self.refusal: Refusal | None = None
        self.trouble: str | None = None
        """What the last look at the channel or the journal has failed for, as clients may know."""

    @property
    def version(self) -> str | None:
        return self._loaded.state.snapshot.version if self._loaded else None

    @property
    def seq(self) -> int:
        return self._loaded.seq if self._loaded else 0

    @property
    def loaded_at(self) -> datetime | None:
        return self._loaded.at if self._loaded else None

    def state(self, min_seq: int = 0) -> State:
        """The state with everything applied that any worker has acknowledged so far.

        Raises NotReady while no bundle is loaded, NotYetVisible when the journal ends before
        `min_seq`.
        """
        if self._loaded is None:
            raise NotReady(f"no bundle is loaded yet: {self._missing()}")
        self.tail(min_seq)
        if self.seq < min_seq:
            raise NotYetVisible(
                f"min_seq is {min_seq}, the journal is read up to {self.seq}; try again"
            )
        return self._loaded.state

    def _missing(self) -> str:
        if self.refusal:
            return self.refusal.reason
        return self.trouble or f"publish one to channel '{self.variant}'"

    def tail(self, upto: int = 0) -> None:
        """Apply what was written since the last look, up to what this worker has written and to
        `upto`. Requests do it for themselves; a worker that gets none must not fall behind either.
        """
        written = max(upto, self._commits.committed)
        if self._loaded and (self._behind or self._journal.moved(written)):
            # The journal reports news once: what fails here is tried again at the next look, from
            # the last chunk that was applied.
            self._behind = True
            for loaded in catch_up(self._loaded, self._journal):
                self._loaded = loaded
                self._measure(loaded)
            self._behind = False

    def follow(self) -> None:
        """What is done every so often, whether anyone asks or not."""
        self._reachable.set(self._journal.reachable())
        self.tail()

    def replace(self, loaded: Loaded) -> None:
        """Serve from this state on. What was written while it was built is applied first."""
        *_, self._loaded = catch_up(loaded, self._journal)
        self._measure(self._loaded)
        self._show(loaded.state)
        self.refusal = None

    def _measure(self, loaded: Loaded) -> None:
        self._journal_seq.set(loaded.seq)
        self._overlay_items.set(len(loaded.state.overlay))
        self._overlay_refused.set(loaded.state.overlay.refused)

    def _show(self, state: State) -> None:
        manifest = state.snapshot.bundle.manifest
        if self._shown:
            self._metrics.bundle.labels(*self._shown).set(0)
        backend = manifest.index.backend
        self._shown = (self.variant, manifest.version, manifest.model, backend)
        self._metrics.bundle.labels(*self._shown).set(1)
        created = manifest.created_at.timestamp()
        self._metrics.bundle_created.labels(self.variant).set(created)
        self._metrics.bundle_loaded.labels(self.variant).set_to_current_time()


def load(state: State, journal: Journal) -> Loaded:
    """A state with all of the journal applied that its bundle lacks.

    Raises BundleError when the bundle includes more of a journal than this one holds, or less than
    was trimmed from it.
    """
    path, included = state.snapshot.bundle.path, state.snapshot.bundle.manifest.seq
    end = journal.last_seq()
    if included > end:
        raise BundleError(
            f"{path}: includes the journal up to seq {included}, the journal of this service ends "
            f"at {end}; it is another one, see TANDEM_STATE"
        )
    following = journal.read(after=included, limit=1)
    first = following[0].seq if following else end + 1
    if first > included + 1:
        raise BundleError(
            f"{path}: includes the journal up to seq {included}, the journal was trimmed and "
            f"begins at {first}; publish a bundle that includes what was trimmed"
        )
    *_, loaded = catch_up(Loaded(state, included, datetime.now(UTC)), journal)
    state.overlay.settle()
    return loaded


def catch_up(loaded: Loaded, journal: Journal) -> Iterator[Loaded]:
    """What is loaded now, and what it is after each chunk of the journal that it lacks.

    Raises JournalError where the journal was trimmed of what is still to be applied.
    """
    yield loaded
    while records := _following(loaded, journal):
        loaded.state.apply(records)
        loaded = Loaded(loaded.state, records[-1].seq, loaded.at)
        yield loaded
        if len(records) < CHUNK:
            break


def _following(loaded: Loaded, journal: Journal) -> list[Record]:
    records = journal.read(after=loaded.seq, limit=CHUNK)
    if not records:
        if loaded.seq >= journal.last_seq():
            return []
        # Written since, or trimmed.
        records = journal.read(after=loaded.seq, limit=CHUNK)
    if not records or records[0].seq > loaded.seq + 1:
        raise JournalError(
            f"the journal was trimmed behind seq {loaded.seq}, which is as far as "
            f"{loaded.state.snapshot.version} has been brought; a bundle that includes more takes "
            "over when the channel points at it"
        )
    return records
