"""Every error has a status, one shape, and tells nothing about the machine."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from contract import errors
from contract.errors import TandemError
from service.app import create_api
from service.errors import STATUS, status_of
from service.front import Front
from service.metrics import Metrics
from service.settings import Settings

# No client can be at fault for these, and no request should meet them.
DELIBERATELY_500 = {
    TandemError,
    errors.DataError,
    errors.RecipeError,
    errors.SettingsError,
    errors.ExtraMissing,
    errors.TrainingError,
    errors.GateError,
    errors.RequestError,
}


def tree(root: type[TandemError]) -> Iterator[type[TandemError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def answer_to(metrics: Metrics, error: Exception) -> httpx.Response:
    """What a client gets when a route raises this."""
    api = create_api(Settings(), metrics)

    async def fail() -> Any:
        raise error

    api.add_api_route("/fail", fail)
    front = Front(api, Settings(), metrics, "0")

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(front)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/fail")

    return asyncio.run(get())


def test_every_error_has_a_status_or_is_deliberately_a_500() -> None:
    every = {kind for kind in tree(TandemError) if kind.__module__ == "contract.errors"}

    assert STATUS.keys() | DELIBERATELY_500 == every
    assert not STATUS.keys() & DELIBERATELY_500
    assert {status_of(kind("")) for kind in DELIBERATELY_500} == {500}


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in tree(TandemError) if kind.__module__ == "contract.errors"]

    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", list(tree(TandemError)), ids=lambda kind: kind.code)
def test_an_error_is_answered_in_the_one_shape(metrics: Metrics, kind: type[TandemError]) -> None:
    answer = answer_to(metrics, kind("what it is; what to do"))

    status = STATUS.get(kind, 500)
    assert answer.status_code == status
    assert answer.json() == {"error": {"code": kind.code, "message": "what it is; what to do"}}
    assert answer.headers.get("retry-after") == ("1" if status in (429, 503) else None)


def test_a_bug_is_logged_with_its_trace_and_tells_the_client_nothing(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    answer = answer_to(metrics, ZeroDivisionError("/secret/path.py"))

    assert answer.status_code == 500
    assert answer.json() == {
        "error": {"code": "internal_error", "message": "the service failed; this is a bug"}
    }
    assert answer.headers["x-tandem-worker"] == "0"
    assert "GET /fail failed" in caplog.text
    assert "ZeroDivisionError: /secret/path.py" in caplog.text
