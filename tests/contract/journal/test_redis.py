from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.errors import JournalDamaged, JournalError
from contract.journal import Record
from contract.journal._news import AHEAD
from contract.journal.redis import RedisJournal
from tests.contract.journal.entries import bodies, event, item
from tests.redis import RedisServer, redis_server
from tests.service.server import wait_until


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for a test to change or stop."""
    with redis_server(tmp_path) as server:
        yield server


def news(journal: RedisJournal, after: int) -> list[Record]:
    wait_until(journal.moved, "news")
    return journal.read(after)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"appendonly": "no"}, "appendonly is 'no', expected 'yes'.*CONFIG SET appendonly yes"),
        ({"appendfsync": "everysec"}, "appendfsync is 'everysec', expected 'always'"),
        (
            {"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"},
            "maxmemory-policy is 'allkeys-lru', which may evict",
        ),
    ],
)
def test_a_server_that_may_lose_what_it_acknowledged_is_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with redis_server(tmp_path, **options) as server:
        with pytest.raises(JournalError, match=message):
            RedisJournal(server.uri("a"))

        with closing(RedisJournal(server.uri("a", "&durable=assumed"))) as journal:
            assert journal.append([event(n=1)]) == range(1, 2)


def test_a_server_that_does_not_let_itself_be_asked_can_be_believed(own: RedisServer) -> None:
    with closing(own.client()) as client:
        client.acl_setuser("shop", True, passwords=["+s3cret"], categories=["+@all", "-@admin"],
                           keys=["*"])  # fmt: skip
    uri = own.uri("a").replace("//", "//shop:s3cret@")

    with pytest.raises(
        JournalError, match=r"no permissions to run the 'config.*durable=assumed"
    ) as caught:
        RedisJournal(uri)
    assert "s3cret" not in str(caught.value)

    with closing(RedisJournal(f"{uri}&durable=assumed")) as journal:
        assert journal.append([event(n=1)]) == range(1, 2)


def test_journals_of_other_names_are_apart(server: RedisServer, tmp_path: Path) -> None:
    one, other = (RedisJournal(server.uri(f"{tmp_path.name}-{n}")) for n in range(2))
    with closing(one), closing(other):
        one.append([event(n=1)])

        assert (one.last_seq(), other.last_seq()) == (1, 0)
        assert other.read(0) == []


def test_what_was_acknowledged_outlives_the_server(own: RedisServer) -> None:
    with closing(RedisJournal(own.uri("a"))) as journal:
        for n in range(100):
            journal.append([event(n=n), event(n=-n)])
        own.kill()
        with pytest.raises(JournalError, match=r"connecting to it.*refused.*see that the server"):
            journal.append([event(n="lost")])
        own.start()

        assert journal.append([event(n=100)]) == range(201, 202)
        assert [body["n"] for body in bodies(journal.read(0))] == [
            *(sign * n for n in range(100) for sign in (1, -1)),
            100,
        ]


def test_news_come_again_when_the_server_does(own: RedisServer) -> None:
    with closing(RedisJournal(own.uri("a"))) as follower:
        with closing(RedisJournal(own.uri("a"))) as writer:
            assert follower.moved()
            writer.append([event(n=1)])
            assert bodies(news(follower, 0)) == [{"n": 1}]
            own.kill()
            # No error: who only reads goes on with what there is.
            assert not follower.moved()
        own.start()
        with closing(RedisJournal(own.uri("a"))) as writer:
            writer.append([event(n=2)])

        assert bodies(news(follower, 1)) == [{"n": 2}]


def test_news_are_read_without_the_server(own: RedisServer) -> None:
    with closing(RedisJournal(own.uri("a"))) as follower:
        follower.moved()
        with closing(RedisJournal(own.uri("a"))) as writer:
            writer.append([event(n=n) for n in range(5)])
        wait_until(follower.moved, "news")
        own.kill()

        assert [record.seq for record in follower.read(0, limit=2)] == [1, 2]
        assert [record.seq for record in follower.read(2)] == [3, 4, 5]
        with pytest.raises(JournalError, match="refused"):
            follower.read(5)


def test_what_was_read_is_no_news(server: RedisServer, tmp_path: Path) -> None:
    uri = server.uri(tmp_path.name)
    with closing(RedisJournal(uri)) as follower, closing(RedisJournal(uri)) as writer:
        follower.moved()
        writer.append([event(n=1)])
        wait_until(follower.moved, "news")
        writer.append([event(n=2)])
        wait_until(lambda: len(follower.read(0)) == 2, "more news")

        assert not follower.moved(upto=2)
        assert follower.read(0, limit=1)[0].seq == 1


def test_a_journal_that_was_lost_is_not_gone_on_with(own: RedisServer) -> None:
    with closing(RedisJournal(own.uri("a"))) as follower:
        follower.moved()
        with closing(RedisJournal(own.uri("a"))) as writer:
            writer.append([event(n=n) for n in range(3)])
        assert len(news(follower, 0)) == 3
        with closing(own.client()) as client:
            client.flushall()
        wait_until(lambda: not follower.reachable(), "the loss to be seen")
        with closing(RedisJournal(own.uri("a"))) as writer:
            writer.append([event(n=n) for n in range(20)])

        # Each look hastens the next one at the server.
        assert not any(follower.moved(upto=20) for _ in range(50))
        assert not follower.reachable()


def test_more_news_than_are_kept_come_as_they_are_read(server: RedisServer, tmp_path: Path) -> None:
    with closing(RedisJournal(server.uri(tmp_path.name))) as journal:
        journal.moved()
        for _ in range(3):
            journal.append([event(n=1)] * AHEAD)
        seen: list[int] = []
        while len(seen) < 3 * AHEAD:
            seen += [record.seq for record in journal.read(seen[-1] if seen else 0, 2000)]

    assert seen == list(range(1, 3 * AHEAD + 1))


def test_a_follower_that_comes_too_late_sees_the_gap(own: RedisServer) -> None:
    with closing(RedisJournal(own.uri("a"))) as follower:
        follower.moved()
        with closing(RedisJournal(own.uri("a"))) as writer:
            writer.append([event(n=n) for n in range(10)])
            assert len(news(follower, 0)) == 10
            own.kill()
            own.start()
            writer.append([event(n=n) for n in range(10, 20)])
            writer.trim(15)

        wait_until(lambda: follower.read(10), "news")
        assert follower.read(10)[0].seq in (11, 16)
        assert [record.seq for record in follower.read(15)] == [16, 17, 18, 19, 20]


@pytest.mark.parametrize("lost", ["all", "the end"])
def test_a_server_that_has_lost_what_was_seen_gets_no_more(own: RedisServer, lost: str) -> None:
    with closing(RedisJournal(own.uri("a"))) as journal:
        journal.append([event(n=n) for n in range(3)])
        with closing(own.client()) as client:
            if lost == "all":
                client.flushall()
            else:
                client.xdel("{a}:journal", "3-0")
                client.set("{a}:seq", 2)

        with pytest.raises(JournalError, match="is another one or has lost what this service has"):
            journal.append([event(n=4)])


def test_an_entry_that_is_none_is_damage(server: RedisServer, tmp_path: Path) -> None:
    with closing(RedisJournal(server.uri(tmp_path.name))) as journal:
        journal.append([item("a", 1)])
        with closing(server.client()) as client:
            client.xadd("{" + tmp_path.name + "}:journal", {"body": "[]", "kind": "item"}, "2-0")

        for touch in (journal.require_readable, lambda: journal.read(0)):
            with pytest.raises(JournalDamaged, match="entry 2 is not as Tandem writes them"):
                touch()
