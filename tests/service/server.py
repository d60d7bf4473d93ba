"""The real service, as `tandem serve` starts it, in a process group of its own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx

from contract.journal import Record, open_journal
from tests.places import ROOT

KEY = "a-key-for-the-tests"
ADMIN = {"Authorization": f"Bearer {KEY}"}
PATIENCE = 60.0
LOOK = 0.02


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        time.sleep(LOOK)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Server:
    """`options` are those of `tandem serve`, with underscores; one that is None is left out."""

    def __init__(self, store: Path, state: Path, **options: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state = state
        self._log = state / "service.log"
        self._worker_count = int(str(options.get("workers", 1)))
        self._options = {
            "store": store,
            "state": state,
            "port": self.port,
            "watch_seconds": 0.1,
            "drain_seconds": 0,
            "admin_key": KEY,
        } | options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self.stop()

    def new_client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30.0, verify=False)

    def start(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        self.client = self.new_client()
        given = {name: value for name, value in self._options.items() if value is not None}
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tandem", "serve", *flags],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Until every worker has answered that it is ready."""
        ready: set[str] = set()

        def all_ready() -> bool:
            answer = self.fresh("/readyz")
            if answer is not None and answer.status_code == 200:
                ready.add(answer.headers["x-tandem-worker"])
            return len(ready) == self._worker_count

        wait_until(all_ready, f"{self.url} to be ready; see {self._log}")

    def fresh(self, path: str) -> httpx.Response | None:
        """A GET on a new connection, which may go to any worker; None when it is refused."""
        assert self._process
        assert self._process.poll() is None, self.log
        with contextlib.suppress(httpx.TransportError):
            return self.client.get(path, headers={"Connection": "close"})
        return None

    @contextlib.contextmanager
    def client_of_each_worker(self) -> Iterator[dict[str, httpx.Client]]:
        """Clients by the worker that their one connection leads to."""
        found: dict[str, httpx.Client] = {}
        with contextlib.ExitStack() as stack:
            while len(found) < self._worker_count:
                client = stack.enter_context(self.new_client())
                found.setdefault(client.get("/healthz").headers["x-tandem-worker"], client)
            yield found

    def stop(self) -> int:
        """As an operator stops it; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """All processes at once, as when the machine loses them."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """The first process alone; the rest must notice."""
        assert self._process
        self.client.close()
        self._process.kill()
        self._process.wait()

    def exit_code_of_start(self) -> int:
        """Of a service that is not to come up."""
        self.start()
        assert self._process
        code = self._process.wait(PATIENCE)
        self._process = None
        return code

    def restart(self) -> None:
        self.start()
        self.wait_ready()

    def _end(self, how: signal.Signals) -> int:
        assert self._process
        self.client.close()
        group, code = self._process.pid, 0
        self._process.send_signal(how)
        try:
            code = self._process.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._process = None
        wait_until(lambda: not _group_lives(group), f"process group {group} to end")
        return code

    def journal(self, after: int = 0) -> list[Record]:
        """What the service has on disk."""
        journal = open_journal(str(self.state / "journal.db"))
        try:
            return journal.read(after)
        finally:
            journal.close()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[int]:
        """Process ids of the workers that uvicorn supervises."""
        assert self._process
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(child) for child in children if _is_worker(child)]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all label sets that have these labels."""
        text = self.client.get("/metrics").text
        return sum(value for found, value in samples(text, name) if labels.items() <= found.items())


def samples(text: str, name: str) -> Iterator[tuple[Mapping[str, str], float]]:
    """The samples of one metric out of Prometheus' text format."""
    for line in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE):
        yield dict(re.findall(r'(\w+)="([^"]*)"', line[0])), float(line[1])


def _is_worker(pid: str) -> bool:
    """The other child is multiprocessing's resource tracker."""
    with contextlib.suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _group_lives(group: int) -> bool:
    """Zombies, which only wait to be reaped, are not alive."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, found, *_ = stat.read_text().rpartition(")")[2].split()
            if int(found) == group and state != "Z":
                return True
    return False
