"""The processes of one service: a supervisor and its workers, started by spawn.

Each worker accepts on a socket of its own. The sockets share the port (SO_REUSEPORT), so the kernel
spreads connections over the workers evenly; with one shared socket it wakes the same worker again
and again while the load is light. The supervisor holds all sockets open: when a worker is killed,
connections wait for the one that takes its place instead of being refused.
"""

import contextlib
import errno
import gc
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from multiprocessing.context import SpawnProcess
from types import FrameType

from contract.errors import SettingsError, StoreError
from contract.journal import open_journal
from contract.store import open_store
from service.access import require_safe
from service.logs import configure
from service.metrics import prepare_directory
from service.settings import Settings, read_settings
from service.sharing import require_shareable

log = logging.getLogger("tandem.server")

# One worker is one process on one core; a library that starts threads of its own only adds
# switches, and OpenMP's threads hang after a fork.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

BACKLOG = 2048
STARTUP_FAILED = 3
"""Exit code of a worker that could not start."""
LEAVING_SECONDS, LEAVING_LOOK = 5.0, 0.05
"""The workers of a supervisor that was killed have the port until they have noticed."""
LEAST_LIFE_SECONDS = 1.0
"""A worker that died is replaced at once, but no slot more often than this."""


def run(options: Mapping[str, str]) -> None:
    """Serve until stopped. Options override the environment, which is how workers get them too.

    Raises SettingsError for an option out of bounds, a port that is taken, more workers than can
    use the index, keys or a certificate that are none, and an address at which strangers could
    write; JournalError for a journal that cannot be read to its end. Exits with code 1 when one
    of the first workers cannot start.
    """
    os.environ.update({f"TANDEM_{name.upper()}": value for name, value in options.items()})
    settings = read_settings()
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    # It would look through all that is installed for plugins, of which Tandem has none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    configure()
    require_safe(settings)
    _require_tls(settings)
    _require_shareable(settings)
    listeners = _listen(settings)
    # Before the workers start, of which none would ever be ready.
    with contextlib.closing(open_journal(settings.journal_uri())) as journal:
        journal.require_readable()
    prepare_directory(settings.runtime_directory())
    sys.exit(Supervisor(listeners).run())


class Supervisor:
    """Keeps one worker running for each listener; the position of a listener is its slot."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        self._workers: list[SpawnProcess] = []
        self._started = [0.0] * len(listeners)
        self._stopping = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._workers = [self._start(slot) for slot in range(len(self._listeners))]
        first, code = tuple(self._workers), 0
        while any(worker.is_alive() for worker in self._workers) or not self._stopping:
            multiprocessing.connection.wait([w.sentinel for w in self._workers], timeout=0.5)
            # Who takes another's place tries again: what it lacks may come back, and the others
            # serve meanwhile.
            if any(w in first and w.exitcode == STARTUP_FAILED for w in self._workers):
                code, self._stopping = 1, True
            if self._stopping:
                # Again, for a worker that was being started when the signal came.
                self._stop()
                # Whoever connects when a worker has stopped is to be refused at once.
                for listener in self._listeners:
                    listener.close()
            else:
                self._replace_dead()
        return code

    def _start(self, slot: int) -> SpawnProcess:
        self._started[slot] = time.monotonic()
        context = multiprocessing.get_context("spawn")
        worker = context.Process(target=_work, args=(slot, self._listeners[slot]))
        worker.start()
        return worker

    def _replace_dead(self) -> None:
        for slot, worker in enumerate(self._workers):
            if worker.is_alive():
                continue
            if worker.exitcode == STARTUP_FAILED:
                self._rebind(slot)
            log.error("worker %d ended with code %s; starting another", slot, worker.exitcode)
            time.sleep(max(0.0, self._started[slot] + LEAST_LIFE_SECONDS - time.monotonic()))
            self._workers[slot] = self._start(slot)

    def _rebind(self, slot: int) -> None:
        """Nobody is led to a socket that does not listen: a worker listens when it is ready."""
        old = self._listeners[slot]
        self._listeners[slot] = _bound(old.getsockname()[:2], shared=True)
        old.close()

    def _stop(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        self._stopping = True
        for worker in self._workers:
            if worker.is_alive():
                worker.terminate()


def _work(slot: int, listener: socket.socket) -> None:
    """In the process of a worker. Only there is imported what serves: a supervisor does not."""
    # What is imported and loaded stays: to walk it again and again takes 40 ms of a start.
    gc.disable()
    from service.worker import work

    work(slot, listener)


def _require_tls(settings: Settings) -> None:
    """Before the workers start, of which each would fail to load it by itself."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise SettingsError("--tls-certificate and --tls-key: only one is given; give both")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        raise SettingsError(
            f"--tls-certificate {certificate} --tls-key {key}: not a certificate with its key "
            f"({error.strerror}); expected two PEM files"
        ) from error


def _require_shareable(settings: Settings) -> None:
    """Before the workers start, of which each would refuse the bundle by itself."""
    store = open_store(settings.store)
    # A channel or bundle that is not there is no reason not to start: one may be published.
    for name in settings.channels.shares:
        with contextlib.suppress(StoreError):
            if channel := store.channel(name):
                require_shareable(store.bundle(channel.version), settings.workers)


def _listen(settings: Settings) -> list[socket.socket]:
    """One listening socket per worker, all on the same port."""
    address = (settings.host, settings.port)
    try:
        _await_port(address)
        listeners = [_bound(address, shared=True) for _ in range(settings.workers)]
    except OSError as error:
        raise SettingsError(
            f"--host {settings.host} --port {settings.port}: cannot listen ({error.strerror}); "
            "choose another port or stop what uses it"
        ) from error
    for listener in listeners:
        listener.listen(BACKLOG)
    return listeners


def _await_port(address: tuple[str, int]) -> None:
    """Shared ports never clash, so a port in use by another program is found by an unshared one."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while True:
        try:
            return _bound(address, shared=False).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(LEAVING_LOOK)


def _bound(address: tuple[str, int], shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
