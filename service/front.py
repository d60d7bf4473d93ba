"""In front of the API: who may pass, how much they may send, and what every answer carries.

An answer is counted before its first byte leaves, so a client that has it finds it counted.
"""

import itertools
import logging
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from time import perf_counter

from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract.errors import Forbidden, Unauthorized
from service import console
from service.access import Access
from service.errors import refusal
from service.logs import REQUEST_ID
from service.metrics import Metrics, observe
from service.routes.parts import ARRIVED
from service.settings import Settings

log = logging.getLogger("tandem")
requests_log = logging.getLogger("tandem.requests")

REQUEST = re.compile(rb"[A-Za-z0-9._-]{1,64}")
"""A request id that a client may give. It goes into answers and logs."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Those that are counted by name: a label must not take whatever a client sends."""
Headers = tuple[tuple[bytes, bytes], ...]
ALWAYS: Headers = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
NOTHING = b"default-src 'none'; frame-ancestors 'none'"
"""An answer is data: a browser that shows it loads and runs nothing."""
DOCS = (
    b"default-src 'none'; connect-src 'self'; img-src data: https://fastapi.tiangolo.com; "
    b"script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    b"style-src 'unsafe-inline' https://cdn.jsdelivr.net; frame-ancestors 'none'"
)
PAGES = {"/console": console.POLICY.encode(), "/docs": DOCS, "/docs/oauth2-redirect": DOCS}
STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")


class Front:
    def __init__(self, api: ASGIApp, settings: Settings, metrics: Metrics, worker: str) -> None:
        self._api, self._metrics, self.max_body = api, metrics, settings.max_body
        self._access, self._logs = Access(settings), settings.access_log
        carried = (*ALWAYS, (b"x-tandem-worker", worker.encode()))
        if settings.tls_certificate:
            carried += (STRICT_TRANSPORT,)
        self.carried = (*carried, (b"content-security-policy", NOTHING))
        """By every answer but a page."""
        self._pages = {
            path: (*carried, (b"content-security-policy", policy)) for path, policy in PAGES.items()
        }
        self._answered = lru_cache(maxsize=1024)(self._series)
        # Of this worker and of this life of it; counting is cheaper than drawing.
        self._prefix, self._numbers = secrets.token_hex(6), itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        started = scope[ARRIVED] = perf_counter()
        method, path, headers = scope["method"], scope["path"], dict(scope["headers"])
        request_id = self.request_id(headers)
        REQUEST_ID.set(request_id.decode())
        carried = self._pages.get(path, self.carried)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    *carried,
                    (b"x-request-id", request_id),
                ]
                route = getattr(scope.get("route"), "path_format", "unmatched")
                self.count(method, route, message["status"], perf_counter() - started)
            await send(message)

        try:
            self.check(method, path, headers, started)
            announced = int(headers.get(b"content-length", b"0"))
            await self._api(scope, self._bounded(announced, receive), counted)
        except (Unauthorized, Forbidden) as error:
            await refusal(error, scope)(scope, receive, counted)
        except Exception:
            log.exception("%s %s failed; this is a bug", method, path)

    def check(self, method: str, path: str, headers: Mapping[bytes, bytes], now: float) -> None:
        """`now` is by a clock of seconds. Raises Unauthorized and Forbidden."""
        self._access.check(method, path, headers.get(b"authorization", b""), now)

    def request_id(self, headers: Mapping[bytes, bytes]) -> bytes:
        """What the client calls its request, else a name of our own."""
        given = headers.get(b"x-request-id")
        if given is not None and REQUEST.fullmatch(given):
            return given
        return f"{self._prefix}-{next(self._numbers)}".encode()

    def _bounded(self, announced: int, receive: Receive) -> Receive:
        received = 0

        async def bounded() -> Message:
            nonlocal received
            self._require_small(announced)
            message = await receive()
            received += len(message.get("body", b""))
            self._require_small(received)
            return message

        return bounded

    def _require_small(self, size: int) -> None:
        if size > self.max_body:
            # Not TooLarge: of all errors while a body is read, FastAPI lets only this kind pass.
            raise HTTPException(
                413, f"body: at most {self.max_body:,} bytes (max_body), found {size:,}; send less"
            )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """An answer that is about to be sent, so many seconds after its request came."""
        count, histogram = self._answered(method if method in METHODS else "other", route, status)
        count.inc()
        observe(histogram, seconds)
        if self._logs:
            # The route and not the path, which names users.
            fields = {"method": method, "route": route, "status": status}
            fields["milliseconds"] = round(1000 * seconds, 3)
            requests_log.warning("answered", extra={"fields": fields})

    def _series(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        metrics = self._metrics
        return (
            metrics.requests.labels(method, route, str(status)),
            metrics.request_seconds.labels(route),
        )
