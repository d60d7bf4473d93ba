"""A journal in Redis Streams: one for the services of many machines.

An entry of the stream has its seq as its id. A commit is one script, so no one comes in between,
and it is answered when the server has it on disk. What others write is fetched by a thread that
waits for it; requests find it in memory, and answer also while the server is away.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contract.errors import JournalDamaged, JournalError
from contract.journal.base import Entry, Kind, Record, Write, encode, shown

log = logging.getLogger("tandem.journal")

NAME = "tandem"
"""Begins the names of the keys, where the URI gives no `name`."""
SECONDS = 5.0
"""An answer of the server that takes longer will not come."""
WAIT_SECONDS = 1.0
"""For news, before the server is asked again; and for a server that is away."""
MOMENT = 0.005
"""Seconds that a request waits for news that are known to be on their way."""
CHUNK = 1000
AHEAD = 20_000
"""Records that are fetched and not yet read, at most."""

APPEND = """
-- KEYS: the stream, the seq given last, the identity of the journal. ARGV: the identity and the
-- last seq that the writer knows of; then for each write its `after` or '', how many entries, and
-- of each entry when, kind, body and the item it is of or ''.
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if redis.call('GET', KEYS[3]) ~= ARGV[1] or last < tonumber(ARGV[2]) then
  return redis.error_reply('OTHER ' .. string.format('%.0f', last))
end
local function overtaken(after, at, count)
  local named = {}
  for n = 0, count - 1 do named[ARGV[at + 4 * n + 3]] = true end
  named[''] = nil
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. after .. '-0', '+')) do
    if named[entry[2][8]] then return true end
  end
  return false
end
local given, at = {}, 3
while at <= #ARGV do
  local after, count = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  if after ~= '' and overtaken(after, at, count) then
    given[#given + 1] = -1
  else
    for n = 0, count - 1 do
      local a = at + 4 * n
      redis.call('XADD', KEYS[1], string.format('%.0f-0', last + 1 + n), 'at', ARGV[a],
        'kind', ARGV[a + 1], 'body', ARGV[a + 2], 'item', ARGV[a + 3])
    end
    last = last + count
    redis.call('SET', KEYS[2], string.format('%.0f', last))
    given[#given + 1] = last
  end
  at = at + 4 * count
end
return given
"""


class RedisJournal:
    """Of `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS, with `name` before the
    names of its keys and `ssl_ca_certs` as a query.

    Raises JournalError for a server that would lose acknowledged writes: it has to write each to
    disk (`appendonly yes`, `appendfsync always`), and to evict none. `durable=assumed` in the query
    believes a server that does not let itself be asked.
    """

    def __init__(self, uri: str) -> None:
        address = _Address(uri)
        self._shown = address.shown
        self._client = address.connect(SECONDS)
        self._stream, self._last, self._identity = address.keys
        self._append = self._client.register_script(APPEND)
        self._known = 0
        """The largest seq that was seen: a server that ends before it has lost what it held."""
        self._news = _News(address)
        with self._explained():
            if not address.durable_assumed:
                self._require_durable()
            self._client.set(self._identity, 1 + secrets.randbelow(2**31 - 1), nx=True)
            self._id = self.identity()

    @classmethod
    def at(cls, uri: str) -> "RedisJournal":
        return cls(uri)

    @staticmethod
    def is_at(uri: str) -> bool:
        address = _Address(uri)
        with closing(address.connect(SECONDS)) as client, _explained(address.shown):
            return bool(client.exists(address.keys.identity))

    def append(self, entries: Sequence[Entry]) -> range:
        (seqs,) = self.append_each([Write(entries)])
        assert seqs is not None
        return seqs

    def append_each(self, writes: Sequence[Write]) -> list[range | None]:
        now, arguments = repr(time.time()), [str(self._id), str(self._known)]
        for write in writes:
            after = "" if write.after is None else str(write.after)
            arguments += [after, str(len(write.entries))]
            for entry in write.entries:
                arguments += [now, entry.kind, encode(entry), _item(entry)]
        with self._explained():
            lasts = self._append([self._stream, self._last, self._identity], arguments)
        self._known = max(self._known, *lasts) if lasts else self._known
        return [
            None if last < 0 else range(last - len(write.entries) + 1, last + 1)
            for last, write in zip(lasts, writes, strict=True)
        ]

    def read(self, after: int, limit: int = 10_000) -> list[Record]:
        if here := self._news.following(after, limit):
            return here
        with self._explained():
            found = self._client.xrange(self._stream, min=f"{after + 1}-0", count=limit)
        return [_record(self._shown, *one) for one in found]

    def moved(self, upto: int = 0) -> bool:
        if not self._news.begun:
            self._news.begin(self._id, self.last_seq())
            return True
        return self._news.moved(upto)

    def reachable(self) -> bool:
        return not self._news.away

    def last_seq(self) -> int:
        with self._explained():
            last = int(self._client.get(self._last) or 0)
        self._known = max(self._known, last)
        return last

    def identity(self) -> int:
        with self._explained():
            return int(self._client.get(self._identity))

    def trim(self, upto: int) -> int:
        with self._explained():
            removed: int = self._client.xtrim(
                self._stream, minid=f"{upto + 1}-0", approximate=False
            )
        return removed

    def require_readable(self) -> None:
        after = 0
        while records := self.read(after, CHUNK):
            after = records[-1].seq

    def close(self) -> None:
        self._news.close()
        self._client.close()

    def _require_durable(self) -> None:
        wanted = {"appendonly": "yes", "appendfsync": "always"}
        found = self._client.config_get(*wanted, "maxmemory", "maxmemory-policy")
        for name, value in wanted.items():
            if found[name] != value:
                raise JournalError(
                    f"journal {self._shown}: {name} is '{found[name]}', expected '{value}', or "
                    f"what is acknowledged may be lost; CONFIG SET {name} {value}"
                )
        policy = found["maxmemory-policy"]
        if policy.startswith("allkeys") and found["maxmemory"] != "0":
            raise JournalError(
                f"journal {self._shown}: maxmemory-policy is '{policy}', which may evict the "
                "journal; CONFIG SET maxmemory-policy noeviction"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with _explained(self._shown):
            yield


class _Keys(NamedTuple):
    stream: str
    last: str
    """Of the seq given last: a stream that was trimmed does not say."""
    identity: str


class _Address:
    """Where a journal is, out of its URI."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self.shown = shown(uri)
        options = dict(parse_qsl(parts.query))
        # In braces: one slot of a cluster has them all.
        name = "{" + options.pop("name", NAME) + "}"
        self.keys = _Keys(f"{name}:journal", f"{name}:seq", f"{name}:identity")
        self.durable_assumed = options.pop("durable", None) == "assumed"
        if options.keys() - {"ssl_ca_certs"}:
            raise JournalError(
                f"journal {self.shown}: '{next(iter(options))}' in its query, expected name=NAME, "
                "durable=assumed or ssl_ca_certs=FILE"
            )
        self._url = parts._replace(query=urlencode(options)).geturl()

    def connect(self, seconds: float) -> Any:
        """`seconds` that an answer may take. An append is never sent twice."""
        try:
            return redis.Redis.from_url(
                self._url,
                socket_timeout=seconds,
                socket_connect_timeout=SECONDS,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except ValueError as error:
            raise JournalError(f"journal {self.shown}: {error}") from error


class _News:
    """What was written, fetched as it comes by a thread of its own."""

    def __init__(self, address: _Address) -> None:
        self._address, self._thread = address, threading.Thread(target=self._run, daemon=True)
        self._changed = threading.Condition()
        self._records = deque[Record]()
        """Consecutive, up to the last that was fetched."""
        self._id = self._fetched = 0
        self._moved = self._closed = self.away = False
        self.begun = False

    def begin(self, identity: int, after: int) -> None:
        self._id, self._fetched, self.begun = identity, after, True
        self._thread.start()

    def moved(self, upto: int) -> bool:
        """Once for all that came since the last call."""
        if self._fetched < upto:
            with self._changed:
                here = lambda: self._fetched >= upto or self.away  # noqa: E731
                self._changed.wait_for(here, MOMENT)
        moved, self._moved = self._moved, False
        return moved

    def following(self, after: int, limit: int) -> list[Record]:
        """Empty where what follows is not here. Forgets what does not."""
        with self._changed:
            while self._records and self._records[0].seq <= after:
                self._records.popleft()
            self._changed.notify()
            if not self._records or self._records[0].seq != after + 1:
                return []
            return list(islice(self._records, limit))

    def close(self) -> None:
        """The thread ends within a moment: it waits for the server."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        with closing(self._address.connect(WAIT_SECONDS + SECONDS)) as self._client:
            self._follow()

    def _follow(self) -> None:
        while self._has_room():
            try:
                records = self._fetch()
            except JournalError as error:
                self._lost(error)
                continue
            if self.away:
                log.warning("journal %s: can be followed again", self._address.shown)
            self._take(records)

    def _lost(self, error: JournalError) -> None:
        if not self.away and not self._closed:
            log.error("%s; answers go on without what others write meanwhile", error)
        with self._changed:
            self.away = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, WAIT_SECONDS)

    def _has_room(self) -> bool:
        """Waits for it; False when there is no more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._records) < AHEAD)
            return not self._closed

    def _fetch(self) -> list[Record]:
        """What follows, when there is some; none after a while."""
        keys, where = self._address.keys, self._address.shown
        with _explained(where):
            found = self._client.xread(
                {keys.stream: f"{self._fetched}-0"}, count=CHUNK, block=round(WAIT_SECONDS * 1000)
            )
            if not found:
                identity, last = self._client.mget(keys.identity, keys.last)
                if int(identity or 0) != self._id or int(last or 0) < self._fetched:
                    raise _other(where, int(last or 0))
        return [_record(where, *one) for _, entries in found for one in entries]

    def _take(self, records: Sequence[Record]) -> None:
        with self._changed:
            self.away = False
            if not records:
                return
            if records[0].seq != self._fetched + 1:
                # Trimmed meanwhile: who reads on finds at the server that it came too late.
                self._records.clear()
            self._records.extend(records)
            self._fetched, self._moved = records[-1].seq, True
            self._changed.notify_all()


def _item(entry: Entry) -> str:
    return str(entry.body["item_id"]) if entry.kind in ("item", "delete") else ""


def _record(where: str, name: bytes, fields: dict[bytes, bytes]) -> Record:
    seq = int(name.partition(b"-")[0])
    try:
        body, kind = orjson.loads(fields[b"body"]), cast(Kind, fields[b"kind"].decode())
        if isinstance(body, dict):
            return Record(seq, float(fields[b"at"]), kind, body)
    except (KeyError, ValueError) as error:
        raise _damaged(where, seq) from error
    raise _damaged(where, seq)


def _damaged(where: str, seq: int) -> JournalDamaged:
    return JournalDamaged(
        f"journal {where}: damaged (entry {seq} is not as Tandem writes them); bring the data of "
        "the server back from a backup"
    )


def _other(where: str, last: int) -> JournalError:
    return JournalError(
        f"journal {where}: ends at seq {last}, and is another one or has lost what this service "
        "has seen; bring the data of the server back, or start the service again"
    )


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        # The address stands there already, as it may be shown.
        said = str(error).replace(urlsplit(where).netloc, "it")
        if said.startswith("OTHER "):
            raise _other(where, int(said.removeprefix("OTHER "))) from error
        raise JournalError(
            f"journal {where}: {said}; see that the server runs, may be reached and takes writes"
        ) from error
