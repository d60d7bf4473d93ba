"""The express way answers as the route does, which documents both; a header leads to the route."""

from urllib.parse import quote

import httpx
import pytest

from contract.bundle import Bundle
from service import express
from tests.service.server import Server

ROUTE = {"X-Tandem-Deadline": "3600000"}

GOOD = (
    "",
    "k=7",
    "k=3&k=5",
    "k=%35",
    "exclude=i1&exclude=i2&exclude=nothing",
    "exclude_seen=false",
    "exclude_seen=0&k=20",
    "include=i1&include=i2",
    "category=",
    "filter=year>=1990&filter=price<20",
    "source=model&source=popular&explain=true",
    "diversity=.3&max_per_category=2&explore=.2&seed=4",
    "min_seq=0",
)
BAD = (
    "k=",
    "k=0",
    "k=x",
    "k=1.5",
    "k=100000",
    "kk=5",
    "k=5&filters=x",
    "exclude=",
    "exclude_seen=maybe",
    "sources=model",
    "source=nobody",
    "filter=year",
    "filter=nothing=5",
    "min_seq=99999999",
    "user_id=u1",
    "diversity=nan",
    "k=%ff",
)
USERS = ("u0", "nobody", "a/b", "ä \n?", "u0/", "x" * 256)


def ask(client: httpx.Client, user: str, query: str) -> tuple[httpx.Response, httpx.Response]:
    """By the express way, if it is one, and by the route."""
    url = f"/v1/recommendations/{quote(user, safe='/')}?{query}"
    return client.get(url), client.get(url, headers=ROUTE)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("query", GOOD)
def test_both_ways_give_one_answer(server: Server, user: str, query: str) -> None:
    found, wanted = ask(server.client, user, query)

    assert found.status_code == 200, found.text
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)
    kind = "content-type"
    assert found.headers[kind] == wanted.headers[kind] == "application/json"


@pytest.mark.parametrize("query", BAD)
def test_both_ways_refuse_alike(server: Server, query: str) -> None:
    found, wanted = ask(server.client, "u0", query)

    assert found.status_code >= 400
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)


@pytest.mark.parametrize("user", ["", "x" * 257])
def test_an_id_of_no_user_is_refused_by_the_route(server: Server, user: str) -> None:
    found, wanted = ask(server.client, user, "k=5")

    assert found.status_code >= 400
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)


def test_answers_are_counted_on_the_route(server: Server) -> None:
    route, method = "/v1/recommendations/{user_id}", "GET"

    def counted() -> float:
        return server.metric("tandem_requests_total", route=route, method=method, status="200")

    before = counted()
    ask(server.client, "u1", "k=5")

    assert counted() == before + 2


def test_lists_are_the_parameters_that_may_be_repeated() -> None:
    assert {"exclude", "include", "filter", "source"} == express.LISTS


def test_what_was_remembered_does_not_carry_a_user_over(server: Server, bundle: Bundle) -> None:
    for user in (bundle.user_ids[0], bundle.user_ids[1], "nobody"):
        answer = server.client.get(f"/v1/recommendations/{user}?k=5").json()

        assert answer["user_id"] == user
