"""What goes past ASGI is HTTP as the rest is: in order, closed when asked, whoever reads slowly."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import orjson
import pytest

from tests.service.server import Server

ROUTE = b"X-Tandem-Deadline: 3600000\r\n"
"""A header that leads to the route."""
OF_ITS_OWN = {b"date", b"x-request-id"}


class Client:
    """Bytes in, answers out."""

    def __init__(self, sock: socket.socket, file: BinaryIO) -> None:
        self._socket, self._file = sock, file

    def send(self, *requests: bytes) -> None:
        self._socket.sendall(b"".join(requests))

    def answer(self) -> tuple[bytes, dict[bytes, bytes], bytes]:
        """Status line, headers, body."""
        status, headers = self._file.readline().strip(), {}
        while line := self._file.readline().strip():
            name, _, value = line.partition(b": ")
            assert name.lower() not in headers, "a header stands twice"
            headers[name.lower()] = value
        return status, headers, self._file.read(int(headers[b"content-length"]))

    def is_closed(self) -> bool:
        return self._file.read(1) == b""


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock,
        sock.makefile("rb") as file,
    ):
        yield Client(sock, file)


def get(user: str, query: str = "k=5", headers: bytes = b"", version: str = "1.1") -> bytes:
    target = f"GET /v1/recommendations/{user}?{query} HTTP/{version}\r\nHost: x\r\n"
    return target.encode() + headers + b"\r\n"


def test_an_answer_has_the_headers_that_the_route_gives(server: Server) -> None:
    with connected(server) as client:
        client.send(get("u1"))
        plain = client.answer()
        client.send(get("u1", headers=ROUTE))
        route = client.answer()

    assert plain[0] == route[0] == b"HTTP/1.1 200 OK"
    assert plain[2] == route[2]
    assert plain[1].keys() == route[1].keys() >= OF_ITS_OWN
    for name in plain[1].keys() - OF_ITS_OWN:
        assert plain[1][name] == route[1][name]
    assert plain[1][b"x-request-id"] != route[1][b"x-request-id"]


def test_a_refusal_has_the_headers_that_the_route_gives(server: Server) -> None:
    """It comes from the recall, not from the query, which would lead to the route."""
    with connected(server) as client:
        client.send(get("u1", "min_seq=99999999"))
        plain = client.answer()
        client.send(get("u1", "min_seq=99999999", ROUTE))
        route = client.answer()

    assert plain[0] == route[0] == b"HTTP/1.1 409 Conflict"
    assert plain[2] == route[2]
    assert plain[1].keys() == route[1].keys()


def test_a_request_id_that_is_given_comes_back(server: Server) -> None:
    with connected(server) as client:
        client.send(get("u1", headers=b"X-Request-Id: the-one\r\n"))

        assert client.answer()[1][b"x-request-id"] == b"the-one"


@pytest.mark.parametrize("between", [b"", ROUTE])
def test_requests_sent_at_once_are_answered_in_order(server: Server, between: bytes) -> None:
    users = [f"u{n}" for n in range(20)]
    headers = [between if n % 3 == 1 else b"" for n in range(len(users))]
    with connected(server) as client:
        client.send(*map(get, users, ["k=5"] * len(users), headers))
        answers = [orjson.loads(client.answer()[2]) for _ in users]

    assert [answer["user_id"] for answer in answers] == users
    assert [len(answer["items"]) for answer in answers] == [5] * len(users)


def test_a_client_that_sends_long_before_it_reads_gets_every_answer(server: Server) -> None:
    """More than the buffers of both sides hold."""
    users = [f"u{n % 100}" for n in range(1500)]
    with connected(server) as client:
        for user in users:
            client.send(get(user, "k=50"))
        answers = [orjson.loads(client.answer()[2]) for _ in users]

    assert [answer["user_id"] for answer in answers] == users


@pytest.mark.parametrize(("headers", "version"), [(b"Connection: close\r\n", "1.1"), (b"", "1.0")])
def test_a_connection_is_closed_when_that_is_asked(
    server: Server, headers: bytes, version: str
) -> None:
    with connected(server) as client:
        client.send(get("u1", headers=headers, version=version))
        status, found, body = client.answer()

        assert re.fullmatch(rb"HTTP/1\.[01] 200 OK", status)
        assert found[b"connection"] == b"close"
        assert orjson.loads(body)["user_id"] == "u1"
        assert client.is_closed()


def test_a_get_with_a_body_is_read_to_its_end(server: Server) -> None:
    with connected(server) as client:
        client.send(get("u1", headers=b"Content-Length: 3\r\n") + b"GET", get("u2"))

        assert [orjson.loads(client.answer()[2])["user_id"] for _ in range(2)] == ["u1", "u2"]


def post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_bodies_in_pieces_and_right_or_wrong_are_answered_in_order(server: Server) -> None:
    """A wrong one goes to the route when all of it has been read."""
    bodies = (b'{"user_id": "u1", "k": 5}', b'{"k": 0}', b"{", b'{"user_id": "u2", "k": 5}')
    requests = b"".join(post("/v1/recommendations", body) for body in bodies)
    for step in (7, 100, len(requests)):
        with connected(server) as client:
            for start in range(0, len(requests), step):
                client.send(requests[start : start + step])
            answers = [client.answer() for _ in bodies]

        assert [int(status.split()[1]) for status, _, _ in answers] == [200, 422, 422, 200]
        assert orjson.loads(answers[0][2])["user_id"] == "u1"
        assert orjson.loads(answers[3][2])["user_id"] == "u2"


def test_an_event_counts_in_the_answer_to_what_was_sent_behind_it(server: Server) -> None:
    event = b'{"user_id": "of-the-wire", "item_id": "i1"}'
    with connected(server) as client:
        client.send(post("/v1/events", event), get("of-the-wire"))
        status, _, body = client.answer()
        recalled = orjson.loads(client.answer()[2])

    assert status == b"HTTP/1.1 201 Created"
    assert recalled["source"] == "session"
    assert recalled["seq"] >= orjson.loads(body)["seq"]
    assert "i1" not in [item["item_id"] for item in recalled["items"]]


@pytest.mark.parametrize("target", [b"/v1/recommendations/u1#k", b"/v1/recommendations/\xc3\xa4"])
def test_a_target_that_is_no_plain_one_is_not_taken_for_one(server: Server, target: bytes) -> None:
    with connected(server) as client:
        client.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, _ = client.answer()

        assert status in (b"HTTP/1.1 200 OK", b"HTTP/1.1 400 Bad Request")


def test_a_client_that_goes_away_leaves_nothing_behind(server: Server) -> None:
    for _ in range(50):
        with connected(server) as client:
            client.send(get("u1"), get("u2"), b"GET /v1/recommendations/u3 HTT")

    with connected(server) as client:
        client.send(get("u4"))
        assert client.answer()[0] == b"HTTP/1.1 200 OK"
    assert "Traceback" not in (server.state / "service.log").read_text()
