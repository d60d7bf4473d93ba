"""A journal in Redis Streams: one for the services of many machines.

An entry of the stream has its seq as its id. A commit is one script, so no one comes in between,
and it is answered when the server has it on disk. What others write is fetched by a thread that
waits for it; requests find it in memory, and answer also while the server is away.
"""

import secrets
import time
from collections.abc import Sequence
from contextlib import closing

import redis

from contract.errors import JournalError
from contract.journal._news import CHUNK, News
from contract.journal._redis import SECONDS, Address, explained, record
from contract.journal.base import Entry, Journal, Record, Write, encode

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


class RedisJournal(Journal):
    """Of `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS, with `name` before the
    names of its keys and `ssl_ca_certs` as a query.

    Raises JournalError for a server that would lose acknowledged writes: it has to write each to
    disk (`appendonly yes`, `appendfsync always`), and to evict none. `durable=assumed` in the query
    believes a server that does not let itself be asked.
    """

    def __init__(self, uri: str) -> None:
        address = Address(uri)
        self._shown = address.shown
        self._client = address.connect(SECONDS)
        self._stream, self._last, self._identity = address.keys
        self._append = self._client.register_script(APPEND)
        self._known = 0
        """The largest seq that was seen: a server that ends before it has lost what it held."""
        self._news = News(address)
        with explained(self._shown):
            if not address.is_assumed_durable:
                self._require_durable()
            self._client.set(self._identity, 1 + secrets.randbelow(2**31 - 1), nx=True)
            self._id = int(self._client.get(self._identity))

    @classmethod
    def at(cls, uri: str) -> "RedisJournal":
        return cls(uri)

    @staticmethod
    def is_at(uri: str) -> bool:
        address = Address(uri)
        with closing(address.connect(SECONDS)) as client, explained(address.shown):
            return bool(client.exists(address.keys.identity))

    def append_each(self, writes: Sequence[Write]) -> list[range | None]:
        now, arguments = repr(time.time()), [str(self._id), str(self._known)]
        for write in writes:
            after = "" if write.after is None else str(write.after)
            arguments += [after, str(len(write.entries))]
            for entry in write.entries:
                arguments += [now, entry.kind, encode(entry), _item(entry)]
        with explained(self._shown):
            lasts = self._append([self._stream, self._last, self._identity], arguments)
        self._known = max(self._known, *lasts) if lasts else self._known
        return [
            None if last < 0 else range(last - len(write.entries) + 1, last + 1)
            for last, write in zip(lasts, writes, strict=True)
        ]

    def read(self, after: int, limit: int = 10_000) -> list[Record]:
        if here := self._news.following(after, limit):
            return here
        with explained(self._shown):
            found = self._client.xrange(self._stream, min=f"{after + 1}-0", count=limit)
        return [record(self._shown, *one) for one in found]

    def moved(self, upto: int = 0) -> bool:
        if not self._news.begun:
            self._news.begin(self._id, self.last_seq())
            return True
        return self._news.moved(upto)

    def reachable(self) -> bool:
        return not self._news.away

    def last_seq(self) -> int:
        with explained(self._shown):
            last = int(self._client.get(self._last) or 0)
        self._known = max(self._known, last)
        return last

    def identity(self) -> int:
        return self._id

    def trim(self, upto: int) -> int:
        with explained(self._shown):
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
        wanted = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
        try:
            found = self._client.config_get(*wanted, "maxmemory", "maxmemory-policy")
        except redis.ResponseError as error:
            raise JournalError(
                f"journal {self._shown}: does not say how it keeps what it acknowledges ({error}); "
                "let CONFIG GET be called, or add durable=assumed to the URI of one that syncs "
                "each write"
            ) from error
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


def _item(entry: Entry) -> str:
    return str(entry.body["item_id"]) if entry.kind in ("item", "delete") else ""
