"""Two services, as on two machines, that share a store and a journal on a real Redis server."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

import tandem
from contract.bundle import open_bundle
from contract.journal import opened_journal
from contract.store import LocalStore
from tests.conftest import live
from tests.redis import RedisServer, redis_server
from tests.service.reference import Reference
from tests.service.server import Server, wait_until
from tests.service.shop import ALL, Shop, path

NAME = "shop"


class Pair(NamedTuple):
    one: Server
    other: Server
    shop: Shop
    """Writes to and reads from the first."""
    redis: RedisServer
    uri: str


@pytest.fixture
def pair(store: LocalStore, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path))
        uri = redis.uri(NAME)
        one, other = (
            stack.enter_context(Server(store.root, tmp_path / name, journal=uri))
            for name in ("one", "other")
        )
        shop = Shop(one, Reference(open_bundle(live(store))))
        yield Pair(one, other, shop, redis, uri)


def ranking(server: Server, user_id: str, seq: int = 0) -> dict[str, float]:
    """From this journal position on."""
    answer = server.client.get(f"/v1/recommendations/{user_id}", params={"k": ALL, "min_seq": seq})
    assert answer.status_code == 200, answer.text
    return {item["item_id"]: item["score"] for item in answer.json()["items"]}


def serves(server: Server, version: str) -> bool:
    return bool(server.client.get("/v1/bundle").json()["version"] == version)


def away(server: Server, expected: bool) -> bool:
    return server.metric("tandem_journal_reachable", variant="live") == (not expected)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(tandem.main, [str(argument) for argument in arguments])


def test_what_one_acknowledged_the_other_answers_with(pair: Pair) -> None:
    features = pair.shop.reference.features
    assert "new" in ranking(pair.other, "u1", pair.shop.post("new", features["i8"]))
    assert "new" not in ranking(pair.other, "u1", pair.shop.delete("new"))
    read = next(iter(ranking(pair.other, "u2")))
    assert read not in ranking(pair.other, "u2", pair.shop.event("u2", read))
    for n in range(30):
        seq = pair.shop.post(f"new-{n}", features[f"i{n}"])
        assert f"new-{n}" in ranking(pair.other, "u1", seq)

    assert ranking(pair.other, "u40", seq) == ranking(pair.one, "u40", seq)
    pair.shop.check_every_path()
    ahead = pair.other.client.get("/v1/recommendations/u1", params={"min_seq": seq + 1})
    assert (ahead.status_code, ahead.json()["error"]["code"]) == (409, "not_yet_visible")


def test_without_min_seq_it_takes_a_moment_elsewhere(pair: Pair) -> None:
    for n in range(100):
        pair.shop.post(f"new-{n}", {})
        # What a worker has acknowledged is in its own next answer.
        assert pair.one.client.get(path(f"new-{n}")).status_code == 200

    wait_until(lambda: pair.other.client.get(path("new-99")).status_code == 200, "the news")


def test_what_was_just_posted_elsewhere_can_be_changed_and_deleted(pair: Pair) -> None:
    for n in range(50):
        for method, name in (("PATCH", f"kept-{n}"), ("DELETE", f"gone-{n}")):
            pair.shop.post(name, {})
            body = {"available": False} if method == "PATCH" else None
            answer = pair.other.client.request(method, path(name), json=body)
            assert answer.status_code == 200, answer.text


def test_while_the_journal_is_away_reads_go_on_and_nothing_is_lost(pair: Pair) -> None:
    seq = pair.shop.post("new", pair.shop.reference.features["i8"])
    before = ranking(pair.other, "u1", seq)
    assert ranking(pair.one, "u1", seq) == before
    pair.redis.kill()

    for server in (pair.one, pair.other):
        refused = server.client.post("/v1/items", json={"item_id": "lost"})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "journal_failed")
        assert int(refused.headers["retry-after"]) >= 1
        assert error["message"].startswith("journal server: ")
        assert str(pair.redis.port) not in refused.text
        assert ranking(server, "u1") == before
        assert server.client.get("/readyz").status_code == 200
        wait_until(partial(away, server, True), "the gauge")
    pair.redis.start()

    again = pair.shop.post("again", {})
    for server in (pair.one, pair.other):
        wait_until(lambda: "can be followed again" in server.log, "the follower's word")  # noqa: B023
        assert ranking(server, "u1", again).keys() == {*before, "again"}
        assert server.client.get(path("lost")).status_code == 404
        wait_until(partial(away, server, False), "the gauge")


def test_a_worker_that_dies_meanwhile_comes_back_with_the_journal(
    store: LocalStore, tmp_path: Path
) -> None:
    with (
        redis_server(tmp_path) as redis,
        Server(store.root, tmp_path, journal=redis.uri(NAME), workers=2) as server,
    ):
        first = server.workers()
        redis.kill()
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: server.log.count("ended with code") >= 2, "a worker that gives up")
        # No connection is led to the one that is missing.
        answers = [server.fresh("/v1/recommendations/u1") for _ in range(20)]
        assert {answer and answer.status_code for answer in answers} == {200}
        redis.start()

        server.wait_ready()
        assert len(server.workers()) == 2


def test_a_machine_that_is_lost_comes_back_with_everything(pair: Pair) -> None:
    pair.shop.post("before", {})
    pair.other.kill()
    seq = pair.shop.post("meanwhile", {})
    pair.shop.delete("before")
    pair.other.restart()

    found = ranking(pair.other, "u1", seq + 1)
    assert "meanwhile" in found
    assert "before" not in found
    assert found == ranking(pair.one, "u1", seq + 1)


def test_verbs_read_and_trim_the_shared_journal(
    pair: Pair, store: LocalStore, tmp_path: Path
) -> None:
    for name in store.channels().keys() - {"live"}:
        (store.root / "channels" / f"{name}.json").unlink()
    pair.shop.post("new", pair.shop.reference.features["i8"])
    pair.shop.event("u1", "new")
    wanted = ranking(pair.one, "u2", 2)

    exported = command("export", "--journal", pair.uri, "--out", tmp_path / "tables")
    assert "1 events, 1 items posted, 0 deleted" in exported.output, exported.output
    done = command("compact", "--store", store.root, "--journal", pair.uri, "--keep", 0, "--json")
    version = json.loads(done.output)["version"]
    assert json.loads(done.output)["trimmed"] == 2
    for server in (pair.one, pair.other):
        wait_until(partial(serves, server, version), "the swap")
        assert server.client.get("/v1/bundle").json()["overlay_items"] == 0
        assert list(ranking(server, "u2")) == list(wanted)
    with opened_journal(pair.uri) as journal:
        assert (journal.last_seq(), journal.read(0)) == (2, [])


def test_the_doctor_looks_at_the_server(
    pair: Pair, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_JOURNAL", pair.uri.replace("//", "//default:s3cret@"))
    pair.shop.post("new", {})
    sound = command("doctor", "--store", store.root)
    pair.redis.kill()
    away = command("doctor", "--store", store.root)

    assert "s3cret" not in sound.output + away.output
    assert "sound, up to seq 1" in sound.output
    assert sound.exit_code == 0
    assert "refused" in away.output
    assert away.exit_code == 1


def test_a_service_does_not_start_without_its_journal(store: LocalStore, tmp_path: Path) -> None:
    server = Server(store.root, tmp_path, journal="redis://:s3cret@127.0.0.1:1/0")

    assert server.exit_code_of_start() == 1
    assert "journal redis://127.0.0.1:1/0: " in server.log
    assert "s3cret" not in server.log
