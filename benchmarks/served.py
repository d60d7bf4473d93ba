"""A real service of a world, and what it is asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import orjson

from benchmarks.contest import SERVED, pinned
from contract.store import LocalStore
from offline.local import Service, local_service
from offline.run import Run

K = 50
MOST_USERS = 20_000
EVENTS = 10_000


class Asked(NamedTuple):
    """Files of what services are asked, and the paths."""

    paths: Path
    events: Path
    first: Path
    """The first path alone."""
    ceiling: Path
    """The path of the ceilings."""
    urls: Sequence[str]


def questions(folder: Path, run: Run) -> Asked:
    """Users in an order of chance: those beside each other in the data are alike."""
    rng = np.random.default_rng(5)
    users, items = run.dataset.user_ids, run.dataset.item_ids
    order = rng.permutation(len(users))[:MOST_USERS].tolist()
    urls = [f"/v1/recommendations/{quote(users[row], safe='')}?k={K}" for row in order]
    events = [
        orjson.dumps({"user_id": users[user], "item_id": items[item]}).decode()
        for user, item in zip(
            rng.integers(0, len(users), EVENTS).tolist(),
            rng.integers(0, len(items), EVENTS).tolist(),
            strict=True,
        )
    ]
    return Asked(
        write_lines(folder / "paths.txt", urls),
        write_lines(folder / "events.txt", events),
        write_lines(folder / "first.txt", urls[:1]),
        write_lines(folder / "ceiling.txt", [f"/u1?k={K}"]),
        urls,
    )


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@contextmanager
def serving(
    folder: Path,
    store: LocalStore,
    cores: Sequence[int] = (SERVED,),
    ready: str = "/readyz",
    workers: int = 1,
    **options: object,
) -> Iterator[Service]:
    """A service with a journal of its own, once every worker of it is ready."""
    with TemporaryDirectory(dir=folder) as state, pinned(*cores):
        given = {"workers": workers, "state": state} | options
        log = Path(state) / "service.log"
        with local_service(str(store.root), log, given, ready=ready) as service:
            seen: set[str] = set()
            while len(seen) < workers:
                status, _, worker = service.call("GET", ready)
                seen |= {worker} if status == 200 else set()
            yield service
