"""`tandem bench serve --against URL`: a service that runs elsewhere, asked for the users of a file.

Throughput at saturation and latency at shares of it, as for a local one and seen from here: the way
there is part of it. Nothing has a bar, since nothing stands beside it.
"""

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, urlsplit

import numpy as np

from benchmarks.contest import Contender, Rates, contest
from benchmarks.loads import loaded
from benchmarks.table import Row
from contract.errors import DataError, TandemError

K = 50
MOST_USERS = 20_000
LOOKED_AT = 100
"""Users whose answers are looked at: of those that the model does not know, the fallback would be
measured."""
PATIENCE = 10.0


def measure(
    url: str, users: Path, key: str, seconds: int, picture: Path | None = None
) -> list[Row]:
    """`users`: an id a line; `key`: of reading, or empty; `seconds`: of each turn.
    Raises DataError for a file that names nobody, TandemError for a service that is not there, not
    ready, or refuses a user."""
    url = url.rstrip("/")
    asked = [f"/v1/recommendations/{quote(user, safe='')}?k={K}" for user in _users(users)]
    _get(f"{url}/readyz")
    sources = [_source(url + path, key) for path in asked[:LOOKED_AT]]
    paths = [urlsplit(url).path + path for path in asked]
    rates = _saturated(url, paths, key, seconds)
    found = loaded(url, paths, rates.rate("recall"), key, seconds)
    label = f"{url}:"
    if picture:
        found.draw(label, picture)
    known = f"{label} of {len(sources)} users, answered by the model"
    return [
        Row(known, sources.count("model") / len(sources), ""),
        Row(f"{label} recall", rates.rate("recall"), "requests/s", spread=rates.spread("recall")),
        Row(f"{label} answers other than 2xx", rates.failed, "answers"),
        *found.rows(label),
        Row(f"{label} answers other than 2xx at a fixed rate", found.failed, "answers"),
    ]


def _users(path: Path) -> list[str]:
    """In an order of chance: those beside each other in a file may be alike."""
    try:
        users = [user for user in path.read_text("utf-8").splitlines() if user]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", error)
        raise DataError(f"{path}: {reason}; expected an id of a user in each line") from error
    if not users:
        raise DataError(f"{path} is empty; expected an id of a user in each line")
    order = np.random.default_rng(5).permutation(len(users))[:MOST_USERS]
    return [users[row] for row in order.tolist()]


def _source(url: str, key: str) -> str:
    """Where the answer of a recall comes from."""
    body = _get(url, key)
    try:
        return str(json.loads(body)["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise TandemError(
            f"{url} answers {body[:50]!r}, expected recommendations; is Tandem there?"
        ) from error


def _get(url: str, key: str = "") -> bytes:
    """Raises TandemError for anything but an answer of 200 from this very address."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=PATIENCE
        ) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        found = error.read()[:200].decode("utf-8", "replace")
        raise TandemError(f"{url} answers {error.code} instead of 200: {found}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise TandemError(f"{url} is not answered: {reason}") from error
    if answer.url != url:
        raise TandemError(f"{url} sends on to {answer.url}; give the address there")
    return body


def _saturated(url: str, paths: list[str], key: str, seconds: int) -> Rates:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "paths.txt"
        file.write_text("\n".join(paths))
        return contest({"recall": Contender(url, file, key=key)}, seconds)
