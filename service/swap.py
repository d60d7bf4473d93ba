"""Hot swap: watch the channel, load beside the running bundle, then replace one reference."""

import asyncio
import logging
import os
import threading
import time

from contract import channels
from contract.checked import Checked
from contract.errors import BackendError, JournalError, TandemError
from contract.journal import open_journal
from contract.store import Channel, Store
from service.live import Live, Loaded, Refusal, load
from service.metrics import Metrics
from service.outward import outward
from service.settings import Settings
from service.sharing import require_shareable
from service.snapshot import load_snapshot
from service.state import State
from service.turn import turn

log = logging.getLogger("tandem.swap")

LOADING_NICENESS = 10


class Swapper:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        live: Live,
        journal_uri: str,
        metrics: Metrics,
    ) -> None:
        self._store, self._channel, self._live = store, live.variant, live
        self._journal_uri, self._max_user_events = journal_uri, settings.max_user_events
        self._workers, self._metrics = settings.workers, metrics
        self._told = outward(settings)
        self._turns = settings.runtime_directory() / "loading"
        self._checked = Checked(settings.state_directory() / "checked.json")
        self._one_at_a_time = asyncio.Lock()

    async def watch(self, seconds: float) -> None:
        """Check the channel every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.follow()

    async def follow(self) -> None:
        """Check the channel and the journal; what stands in the way is logged, and the next look
        tries again."""
        try:
            await self.check()
            self._live.follow()
            self._live.trouble = None
        except TandemError as error:
            self._live.trouble = self._told(str(error))
            log.error("following channel '%s': %s", self._channel, error)
        # Else the watch would end, and no bundle would ever be served again.
        except Exception as error:
            self._live.trouble = self._told(f"following failed, {_shown(error)}")
            log.exception("following channel '%s'", self._channel)

    async def check(self, retry: bool = False) -> bool:
        """Serve what the channel points at; whether that is a new bundle.

        A bundle that is refused leaves the running one in place. It is not tried again until the
        channel moves, unless `retry`.
        """
        async with self._one_at_a_time:
            return await self._check(retry)

    async def rollback(self) -> bool:
        """Point the channel at what it pointed at before, and serve it; whether that is a new
        bundle. Raises as `channels.rollback` does."""
        async with self._one_at_a_time:
            # In a thread: an index that is gone from its server takes its time to be built again.
            await asyncio.to_thread(channels.rollback, self._store, self._channel)
            return await self._check(retry=True)

    async def _check(self, retry: bool) -> bool:
        channel = self._store.channel(self._channel)
        if channel is None:
            return False
        if channel.version == self._live.version:
            self._live.refusal = None
            return False
        refused = self._live.refusal
        if refused and refused.version == channel.version and not retry:
            return False
        return await self._take(channel)

    async def _take(self, channel: Channel) -> bool:
        refusal = await self._swap(channel.version)
        if refusal and self._live.version is None:
            # A worker that starts now serves what the others went on serving.
            for version in reversed(channel.previous):
                if await self._swap(version) is None:
                    break
        self._live.refusal = refusal
        return refusal is None

    async def _swap(self, version: str) -> Refusal | None:
        started = time.perf_counter()
        try:
            loaded = await asyncio.to_thread(self._load_in_turn, version)
        except (JournalError, BackendError):
            # Not the bundle's fault: the next look tries again.
            raise
        # Whatever else a bundle makes its readers raise, the running one keeps serving.
        except Exception as error:
            known = isinstance(error, TandemError)
            reason = str(error) if known else _unforeseen(version, error)
            self._metrics.swaps.labels(self._channel, "refused").inc()
            log.error(
                "variant '%s': bundle %s refused, %s keeps serving: %s",
                self._channel,
                version,
                self._live.version,
                reason,
                exc_info=not known,
            )
            return Refusal(version, self._told(reason))
        self._live.replace(loaded)
        self._metrics.swaps.labels(self._channel, "swapped").inc()
        seconds = time.perf_counter() - started
        log.warning("variant '%s': bundle %s serves after %.2f s", self._channel, version, seconds)
        return None

    def _load_in_turn(self, version: str) -> Loaded:
        """Runs in a thread of its own. Where a bundle runs, it goes first: the thread is of low
        priority, and one worker loads at a time, so that the others have the cores. Workers that
        serve nothing yet have nothing to wait for; the one that checks the bundle has all cores."""
        if self._live.version is None:
            return self._load(version, threads=len(os.sched_getaffinity(0)))
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADING_NICENESS)
        with turn(self._turns):
            return self._load(version, threads=1)

    def _load(self, version: str, threads: int) -> Loaded:
        directory = self._store.bundle(version)
        require_shareable(directory, self._workers)
        snapshot = load_snapshot(directory, self._checked, threads)
        journal = open_journal(self._journal_uri)
        try:
            state = State.of(snapshot, self._max_user_events, journal.identity())
            return load(state, journal)
        finally:
            journal.close()


def _unforeseen(version: str, error: Exception) -> str:
    return f"{version}: loading failed, {_shown(error)}; publish the run again"


def _shown(error: Exception) -> str:
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}"
