"""A real service on this machine: started, waited for, talked to, stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contract.errors import TandemError

READY_SECONDS = 60.0
STOP_SECONDS = 20.0


class Service:
    """A running service, over HTTP; every call is a connection of its own."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], admin_key: str) -> None:
        self.port, self.process, self._admin_key = port, process, admin_key
        self.url = f"http://127.0.0.1:{port}"

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes, str]:
        """Status, body, and the number of the worker that answered."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._admin_key}"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read(), answer.headers["x-tandem-worker"]
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers.get("x-tandem-worker", "")

    def get(self, path: str, **query: object) -> Any:
        """Raises TandemError for an answer that is not 2xx."""
        asked = path + ("?" + urllib.parse.urlencode(query) if query else "")
        return self._checked("GET", asked, *self.call("GET", asked)[:2])

    def post(self, path: str, body: object) -> Any:
        return self._checked("POST", path, *self.call("POST", path, body)[:2])

    def _checked(self, method: str, path: str, status: int, body: bytes) -> Any:
        if status >= 300:
            raise TandemError(f"{method} {path}: {status} {body.decode()[:200]}")
        return json.loads(body)


@contextmanager
def local_service(
    store: str, log: Path, options: Mapping[str, object], keep: bool = False, ready: str = "/readyz"
) -> Iterator[Service]:
    """Serve a store on a free port. `options` are settings of the service; `keep` leaves it running
    at the end; it is waited for until it answers a GET of `ready` with 200. Raises TandemError
    when it does not."""
    port = free_port()
    settings = {f"TANDEM_{name.upper()}": str(value) for name, value in options.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tandem", "serve", "--store", store, "--port", str(port)],
            stdout=output,
            stderr=output,
            env=os.environ | settings,
            start_new_session=True,
        )
    service = Service(port, process, str(options.get("admin_key", "")))
    done = False
    try:
        _wait_ready(service, ready, log)
        yield service
        done = True
    finally:
        if not (done and keep):
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)


def _wait_ready(service: Service, ready: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while service.process.poll() is None and time.monotonic() < deadline:
        try:
            if service.call("GET", ready)[0] == 200:
                return
        except OSError:
            pass  # not listening yet
        time.sleep(0.05)
    raise TandemError(f"the service did not become ready; its log is {log}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
