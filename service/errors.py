"""Which HTTP status each error has, in one table, and the one shape of an error answer."""

import json
import logging
from collections.abc import Callable
from typing import Any

from starlette.datastructures import URL
from starlette.responses import Response
from starlette.types import Scope

from contract.errors import (
    BackendError,
    BadItems,
    BundleError,
    Conflict,
    DiskError,
    FeatureError,
    Forbidden,
    FormatError,
    JournalDamaged,
    JournalError,
    MalformedRequest,
    NotReady,
    NotYetVisible,
    Overloaded,
    RequestError,
    StoreError,
    TandemError,
    TooLarge,
    Unauthorized,
    UnknownItem,
)

log = logging.getLogger("tandem")

STATUS: dict[type[TandemError], int] = {
    MalformedRequest: 422,
    BadItems: 422,
    FeatureError: 422,
    UnknownItem: 404,
    NotYetVisible: 409,
    Conflict: 409,
    StoreError: 409,
    DiskError: 503,
    BundleError: 409,
    FormatError: 409,
    TooLarge: 413,
    Unauthorized: 401,
    Forbidden: 403,
    Overloaded: 429,
    NotReady: 503,
    JournalError: 503,
    JournalDamaged: 503,
    BackendError: 503,
}

RETRY_SECONDS = 1
HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(RETRY_SECONDS)},
    503: {"Retry-After": str(RETRY_SECONDS)},
}


def status_of(error: TandemError) -> int:
    """500 for an error that no client can be at fault for."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def refusal(error: TandemError, scope: Scope, told: Callable[[str], str] = str) -> Response:
    """The answer to a request that came to this; what no client is at fault for is logged. `told`
    makes of a message that is not about the request what a client may know of it."""
    status, message = status_of(error), str(error)
    if status >= 500:
        log.error("%s %s: %s", scope["method"], URL(scope=scope).path, message)
    if not isinstance(error, RequestError | FeatureError):
        message = told(message)
    return error_answer(status, error.code, message, **error.details)


def failure() -> Response:
    """The answer where the service has a bug."""
    return error_answer(500, "internal_error", "the service failed; this is a bug")


def error_answer(status: int, code: str, message: str, **more: Any) -> Response:
    body = {"error": {"code": code, "message": message, **more}}
    # Not orjson: a message may quote what only Python's own encoder can write, a lone surrogate.
    return Response(json.dumps(body), status, HEADERS.get(status), "application/json")
