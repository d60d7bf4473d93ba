"""How a worker stops politely: it is not ready any more and asks clients to go elsewhere, goes on
answering for a while, and stops then."""

from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from contract.errors import NotReady
from service.errors import refusal

READINESS = "/readyz"


class Drain:
    """In front of an application; used by the thread of its event loop."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds
        self._since: float | None = None

    def begin(self) -> None:
        """Once begun, beginning again changes nothing."""
        if self._since is None:
            self._since = monotonic()

    @property
    def begun(self) -> bool:
        return self._since is not None

    @property
    def over(self) -> bool:
        return self._since is not None and monotonic() - self._since >= self._seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.begun and scope["type"] == "http" and scope["path"] == READINESS:
            error = NotReady("this worker is being stopped; ask another one")
            await refusal(error, scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
