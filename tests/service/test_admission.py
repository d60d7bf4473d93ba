"""The gate: bounded, fair, aware of deadlines; and batches through the real service."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import httpx
import pytest

from contract.errors import Overloaded, TooLarge
from contract.store import LocalStore
from service import schemas
from service.admission import Gate
from service.metrics import Metrics
from tests.service.server import Server, wait_until

CAPACITY = 6
BATCH = "/v1/recommendations:batch"


@pytest.fixture
def gate(metrics: Metrics) -> Gate:
    return Gate(CAPACITY, metrics)


def test_more_than_ever_fits_is_refused_at_once(gate: Gate) -> None:
    with pytest.raises(TooLarge, match=r"requests: at most 6 \(max_admitted\), found 7"):
        gate.admit(CAPACITY + 1).__enter__()


def test_recalls_are_admitted_up_to_the_capacity_and_again_when_some_are_done(gate: Gate) -> None:
    with gate.admit(4):
        with gate.admit(2), pytest.raises(Overloaded, match=r"6 recalls wait, at most 6 may"):
            gate.admit(1).__enter__()
        with pytest.raises(Overloaded), gate.admit(3):
            pass
        with pytest.raises(ZeroDivisionError), gate.admit(2):
            raise ZeroDivisionError
    with gate.admit(CAPACITY):
        pass


def test_what_would_not_fit_is_refused_before_it_is_read(gate: Gate) -> None:
    gate.expect(CAPACITY + 1)
    with gate.admit(2):
        gate.expect(CAPACITY - 2)
        with pytest.raises(Overloaded, match=r"2 recalls wait, at most 6 may"):
            gate.expect(CAPACITY - 1)
    with gate.admit(CAPACITY), pytest.raises(Overloaded):
        gate.expect(1)


def test_a_batch_and_single_recalls_take_turns(gate: Gate) -> None:
    done: list[str] = []

    async def work(name: str, recalls: int) -> None:
        with gate.admit(recalls) as turn:
            for _ in range(recalls):
                await turn()
                done.append(name)

    async def run() -> None:
        await asyncio.gather(work("batch", 3), work("a", 1), work("b", 1))

    asyncio.run(run())

    assert done == ["batch", "a", "b", "batch", "batch"]


def test_all_that_arrives_together_is_counted_before_any_of_it_runs(gate: Gate) -> None:
    done: list[int] = []
    refused: list[int] = []

    async def work(number: int) -> None:
        try:
            with gate.admit(1) as turn:
                await turn()
                assert len(refused) == 4
                done.append(number)
        except Overloaded:
            refused.append(number)

    async def run() -> None:
        await asyncio.gather(*(work(number) for number in range(CAPACITY + 4)))

    asyncio.run(run())

    assert (done, refused) == ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9])


def test_a_turn_after_the_deadline_is_refused_before_the_work(gate: Gate) -> None:
    done: list[int] = []

    async def work(due: float) -> None:
        with gate.admit(3, due) as turn:
            for number in range(3):
                await turn()
                done.append(number)

    with pytest.raises(Overloaded, match=r"ms after the deadline \(X-Tandem-Deadline\)"):
        asyncio.run(work(perf_counter()))
    assert done == []
    asyncio.run(work(perf_counter() + 3600))
    assert done == [0, 1, 2]
    with gate.admit(CAPACITY):
        pass


@pytest.fixture(scope="module")
def server(shelf: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = {"max_admitted": CAPACITY, "max_recalls": 3 * CAPACITY}
    state = tmp_path_factory.mktemp("admission")
    with Server(shelf.root, state, channels="exact", **options) as server:
        yield server


REQUESTS: list[dict[str, Any]] = [
    {"user_id": "u1", "k": 7},
    {"user_id": "u2", "exclude": ["i1", "i2"], "category": "c1"},
    {"history": ["i3", "i4"], "k": 300},
    {"user_id": "nobody", "features": {"age": 30}},
    {},
    {"user_id": "u1", "k": 7},
]


def test_each_answer_of_a_batch_is_that_of_the_single_request(server: Server) -> None:
    answer = server.client.post(BATCH, json={"requests": REQUESTS})

    found = schemas.BatchOfRecommendations.model_validate(answer.json(), strict=True)
    assert len(found.answers) == len(REQUESTS)
    singles = [server.client.post("/v1/recommendations", json=one).json() for one in REQUESTS]
    assert answer.json() == {"answers": singles}


def test_the_recalls_of_a_batch_are_counted_one_by_one(server: Server) -> None:
    def counted() -> tuple[float, float]:
        return server.metric("tandem_answers_total"), server.metric("tandem_recall_seconds_count")

    before = counted()

    assert server.client.post(BATCH, json={"requests": REQUESTS}).is_success

    assert counted() == (before[0] + len(REQUESTS), before[1] + len(REQUESTS))


def test_a_batch_fails_as_a_whole_and_names_the_position(server: Server) -> None:
    requests = [{}, {}, {"min_seq": 1000}]
    before = server.metric("tandem_answers_total")

    answer = server.client.post(BATCH, json={"requests": requests})

    assert answer.status_code == 409
    message = answer.json()["error"]["message"]
    assert message.startswith("requests.2: min_seq is 1000")
    assert server.metric("tandem_answers_total") == before


def test_a_batch_over_the_capacity_is_too_large_at_once(server: Server) -> None:
    answer = server.client.post(BATCH, json={"requests": [{}] * (CAPACITY + 1)})

    assert answer.status_code == 413
    assert "at most 6 (max_admitted), found 7" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get("/v1/recommendations/u1"),
        lambda client: client.post("/v1/recommendations", json={}),
        lambda client: client.post(BATCH, json={"requests": [{}]}),
        lambda client: client.get("/v1/items/i1/similar"),
    ],
)
def test_while_the_budget_is_taken_every_recall_is_turned_away(
    server: Server, ask: Callable[[httpx.Client], httpx.Response]
) -> None:
    ended = threading.Event()
    refused: list[httpx.Response] = []

    def fill() -> None:
        with server.new_client() as client:
            while not ended.is_set():
                client.post(BATCH, json={"requests": [{"k": 1000}] * CAPACITY})

    def turned_away() -> bool:
        answer = ask(server.client)
        assert answer.status_code in (200, 429)
        refused.extend([answer] if answer.status_code == 429 else [])
        return bool(refused)

    before = server.metric("tandem_recalls_turned_away_total", reason="full")
    filling = threading.Thread(target=fill)
    filling.start()
    try:
        wait_until(turned_away, "a refusal")
    finally:
        ended.set()
        filling.join()

    assert refused[0].json()["error"]["code"] == "overloaded"
    assert refused[0].headers["retry-after"] == "1"
    assert server.metric("tandem_recalls_turned_away_total", reason="full") > before
    assert ask(server.client).status_code == 200
