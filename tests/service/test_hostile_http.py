"""Any bytes as a request: answered or closed, never a 5xx, never a worker that ends or hangs."""

import json
import os
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.store import LocalStore
from tests.service.server import KEY, Server

PATIENCE = 30.0
HOSTILE = settings(
    max_examples=int(os.environ.get("TANDEM_EXAMPLES", "100")),
    deadline=None,
    derandomize="TANDEM_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)
PATHS = (
    b"/v1/recommendations/u1",
    b"/v1/recommendations",
    b"/v1/recommendations:batch",
    b"/v1/items",
    b"/v1/items/i1",
    b"/v1/items/i1/similar",
    b"/v1/events",
    b"/v1/bundle",
    b"/v1/bundle/reload",
    b"/healthz",
    b"/",
)
NAMES = (
    b"Content-Length",
    b"Transfer-Encoding",
    b"Content-Type",
    b"Authorization",
    b"X-Request-ID",
    b"X-Tandem-Variant",
    b"X-Tandem-Deadline",
    b"Expect",
    b"Upgrade",
    b"Connection",
    b"Host",
)
in_a_line = st.binary(max_size=40).map(lambda b: re.sub(rb"[\r\n]", b"", b))
values = in_a_line | st.sampled_from((b"-1", b"1e9", b"chunked", b"websocket", b"100-continue"))
headers = st.lists(st.tuples(st.sampled_from(NAMES) | in_a_line, values), max_size=5)
atoms = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
names = st.sampled_from(("item_id", "items", "user_id", "k", "features", "filters", "history"))
documents = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(names | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)
bodies = st.binary(max_size=200) | documents.map(lambda d: json.dumps(d).encode())


@pytest.fixture(scope="module")
def server(shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(shelf.root, tmp_path_factory.mktemp("hostile"), channels="exact") as server:
        yield server
        # One process from first to last, and nothing that it took for a bug.
        levels = {json.loads(line)["level"] for line in server.log.splitlines()}
        assert levels == {"warning"}


def answers(server: Server, sent: bytes) -> list[int]:
    """The statuses of what comes back until the service closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        except (ConnectionResetError, BrokenPipeError):
            return []
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", received, re.MULTILINE)]


@HOSTILE
@given(sent=st.binary(max_size=400))
def test_any_bytes_are_refused_or_not_answered(server: Server, sent: bytes) -> None:
    assert set(answers(server, sent)) <= {400}


@HOSTILE
@given(
    method=st.sampled_from(
        (b"GET", b"POST", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"PROPFIND")
    ),
    path=st.sampled_from(PATHS) | in_a_line.map(lambda b: b"/v1/items/" + b),
    query=in_a_line,
    headers=headers,
    body=bodies,
    keyed=st.booleans(),
)
def test_what_looks_like_a_request_is_answered_below_500(
    server: Server,
    method: bytes,
    path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    keyed: bool,
) -> None:
    given = [*headers, (b"Content-Type", b"application/json")]
    if keyed:
        given.append((b"Authorization", f"Bearer {KEY}".encode()))
    given.append((b"Content-Length", str(len(body)).encode()))
    lines = b"".join(b"%b: %b\r\n" % header for header in given)
    target = path + (b"?" + query if query else b"")

    found = answers(server, b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, lines, body))

    assert [status for status in found if status >= 500] == []


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"item_id": "' + b"x" * 1_000_000 + b'"}',
        b'{"item_id": "x", "features": {"year": ' + b"9" * 100_000 + b"}}",
        b'{"item_id": "\\ud800"}',
        b'{"item_id": "x", "features": {"year": 1e400}}',
        b'{"items": [' + b'{"item_id": "x"},' * 100_000 + b"{}]}",
        b"\xff\xfe" * 1000,
        b"null",
        b'"x"',
        b"NaN",
    ],
    ids=range(11),
)
def test_a_body_that_is_made_to_hurt_is_refused(server: Server, body: bytes) -> None:
    head = (
        b"POST /v1/items HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )

    assert answers(server, head % len(body) + body) in ([400], [413], [422])


def test_headers_without_end_are_cut_off(server: Server) -> None:
    sent = b"GET /healthz HTTP/1.1\r\n" + b"X-Long: " + b"x" * 2_000_000

    assert set(answers(server, sent)) <= {400, 431}
