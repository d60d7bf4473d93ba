"""One worker of the service: its application, in a process of its own."""

import multiprocessing
import signal
import socket
import sys
import threading
from functools import partial
from types import FrameType

import uvicorn

from service.app import create_app
from service.drain import Drain
from service.server import STARTUP_FAILED
from service.settings import read_settings
from service.wire import CLOSED, Wire

FINISH_SECONDS = 10
"""For what is being answered when the drain is over."""


def work(slot: int, listener: socket.socket) -> None:
    """Serves on this listener until it is told to stop."""
    settings = read_settings()
    app, plain = create_app(slot)
    drain = Drain(app, settings.drain_seconds)
    config = uvicorn.Config(
        drain,
        http=partial(Wire, plain),  # type: ignore[arg-type]  # it only calls it
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    server = PoliteServer(config, drain)
    threading.Thread(target=_die_with_supervisor, args=(server,), daemon=True).start()
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(STARTUP_FAILED)


class PoliteServer(uvicorn.Server):
    """Drains on SIGTERM, and stops when that is over."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:
            self._drain.begin()
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        stops = await super().on_tick(counter)
        headers = self.server_state.default_headers
        if self._drain.begun and CLOSED not in headers:
            self.server_state.default_headers = [*headers, CLOSED]
        return stops or self._drain.over


def _die_with_supervisor(server: uvicorn.Server) -> None:
    """A worker whose supervisor was killed would go on serving with no one to stop it. It does not
    drain: whoever takes the service's place waits for the port."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    server.should_exit = True
