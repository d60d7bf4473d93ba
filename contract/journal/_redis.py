"""Where a journal on a Redis server is, what of it is read, and what its errors say."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contract.errors import JournalDamaged, JournalError
from contract.journal.base import Kind, Record, shown

NAME = "tandem"
"""Begins the names of the keys, where the URI gives no `name`."""
SECONDS = 5.0
"""An answer of the server that takes longer will not come."""


class Keys(NamedTuple):
    stream: str
    last: str
    """Of the seq given last: a stream that was trimmed does not say."""
    identity: str


class Address:
    """Where a journal is, out of its URI."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self.shown = shown(uri)
        options = dict(parse_qsl(parts.query))
        # In braces: one slot of a cluster has them all.
        name = "{" + options.pop("name", NAME) + "}"
        self.keys = Keys(f"{name}:journal", f"{name}:seq", f"{name}:identity")
        self.is_assumed_durable = options.get("durable") == "assumed"
        if self.is_assumed_durable:
            del options["durable"]
        if wrong := sorted(options.keys() - {"ssl_ca_certs"}):
            raise JournalError(
                f"journal {self.shown}: '{wrong[0]}' in its query, expected "
                "name=NAME, durable=assumed or ssl_ca_certs=FILE"
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
            # Not what it says: that may be a part of the password.
            raise JournalError(
                f"journal {self.shown}: not a URI; percent-encode what is special in the password"
            ) from error


def record(where: str, name: bytes, fields: dict[bytes, bytes]) -> Record:
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


def other(where: str, last: int) -> JournalError:
    return JournalError(
        f"journal {where}: ends at seq {last}, and is another one or has lost what this service "
        "has seen; bring the data of the server back, or start the service again"
    )


@contextmanager
def explained(where: str) -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        # The address stands there already, as it may be shown.
        said = str(error).replace(urlsplit(where).netloc, "it").rstrip(".")
        if said.startswith("OTHER "):
            raise other(where, int(said.removeprefix("OTHER "))) from error
        raise JournalError(
            f"journal {where}: {said}; see that the server runs, may be reached and takes writes"
        ) from error
