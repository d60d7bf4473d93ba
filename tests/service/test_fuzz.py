"""The whole API under generated requests, valid and not: no 500, every answer as documented."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from contract.store import LocalStore
from tests.conftest import live
from tests.service.server import ADMIN, Server
from tests.service.test_api import ROUTES

EXAMPLES = 15
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NOTHING_TO_SPOIL = ("/healthz", "/readyz", "/metrics", "/console")
CASES = [
    (method, path, mode)
    for method, path in sorted(ROUTES)
    for mode in GenerationMode
    if mode.is_positive or path not in NOTHING_TO_SPOIL
]


@pytest.fixture(scope="module")
def server(shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With two variants, a cache, and something to roll back to."""
    folder = tmp_path_factory.mktemp("fuzz")
    store = LocalStore(shutil.copytree(shelf.root, folder / "store"))
    store.point("rolled", live(store).name)
    with Server(store.root, folder / "state", channels="exact,rolled", cache_entries=9) as server:
        yield server


@pytest.fixture(scope="module")
def api(server: Server) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_no_request_is_answered_otherwise_than_documented(
    api: BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def check(case: Case[Any]) -> None:
        case.call_and_validate(headers=ADMIN, checks=CHECKS)

    check()
