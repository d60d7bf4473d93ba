"""What arrives together is answered together: at most so many, each with its own answer or error,
and by the service as if each had come alone."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.types import ASGIApp, Message

from contract.store import LocalStore
from service.app import create_api
from service.expect import Expect
from service.metrics import Metrics
from service.rounds import Rounds
from service.routes.parts import ARRIVED
from service.settings import Settings

MOST = 4


class Doubling:
    """Answers numbers; refuses odd ones, and a whole round in which there is a zero."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []

    def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.rounds.append(list(asked))
        if 0 in asked:
            raise ZeroDivisionError("a zero")
        return [ValueError(number) if number % 2 else 2 * number for number in asked]


def joined(numbers: Sequence[int]) -> tuple[list[int | BaseException], list[list[int]]]:
    """The answers to what is asked at once, and the rounds."""
    answer = Doubling()

    async def run() -> list[int | BaseException]:
        rounds = Rounds[int, int](answer, MOST)
        asking = (rounds.join(number) for number in numbers)
        return await asyncio.gather(*asking, return_exceptions=True)

    return asyncio.run(run()), answer.rounds


def test_what_arrives_together_is_answered_in_rounds_of_at_most_so_many() -> None:
    answers, rounds = joined(range(2, 12))

    assert rounds == [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]
    assert answers[::2] == [4, 8, 12, 16, 20]
    assert [str(answer) for answer in answers[1::2]] == ["3", "5", "7", "9", "11"]


def test_a_failure_is_that_of_its_round_alone() -> None:
    answers, _ = joined([2, 0, 4, 6, 8])

    assert [type(answer) for answer in answers] == [ZeroDivisionError] * 4 + [int]


def test_who_comes_later_is_answered_in_a_round_of_their_own() -> None:
    answer = Doubling()

    async def run() -> None:
        rounds = Rounds[int, int](answer, MOST)
        assert await rounds.join(2) == 4
        gone = asyncio.ensure_future(rounds.join(4))
        await asyncio.sleep(0)
        gone.cancel()
        assert await rounds.join(6) == 12

    asyncio.run(run())

    assert answer.rounds == [[2], [4, 6]]


QUERIES = ("", "k=7", "k=7&exclude=i1", "category=space", "filter=year>=1990", "source=popular")
WRONG = ("min_seq=999", "filter=nothing=5", "diversity=.2&k=3&category_diversity=-1")


@pytest.mark.parametrize("cache_entries", [0, 50])
def test_requests_that_arrive_together_are_answered_as_each_alone(
    shelf: LocalStore, metrics: Metrics, tmp_path: Path, cache_entries: int
) -> None:
    settings = Settings(
        store=str(shelf.root), state=str(tmp_path / "state"), cache_entries=cache_entries
    )
    api = create_api(settings, metrics)
    asked = [(user, query) for user in ("u1", "u2", "nobody") for query in QUERIES + WRONG]

    async def run() -> tuple[list[tuple[int, Any]], list[tuple[int, Any]]]:
        async with api.router.lifespan_context(api):
            app = Expect(api)
            together = await asyncio.gather(*(ask(app, *one) for one in asked))
            return together, [await ask(app, *one) for one in asked]

    together, alone = asyncio.run(run())

    assert [status for status, _ in alone].count(200) == 3 * len(QUERIES)
    assert [status for status, _ in together] == [status for status, _ in alone]
    for (_, found), (_, wanted) in zip(together, alone, strict=True):
        scores = [[item.pop("score") for item in a.get("items", ())] for a in (found, wanted)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        assert found == wanted


async def ask(app: ASGIApp, user: str, query: str) -> tuple[int, Any]:
    """Status and body."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    path = f"/v1/recommendations/{user}"
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
    }
    scope |= {"query_string": query.encode(), "headers": [], "scheme": "http", "root_path": ""}
    scope |= {"server": ("127.0.0.1", 80), ARRIVED: 0.0}
    await app(scope, receive, send)
    return sent[0]["status"], orjson.loads(sent[1]["body"])
