"""The journal: the durable, ordered log of what was written online, by the scheme of its URI.

A new kind: one file beside this one, one line in `JOURNALS`, and the contract test runs over it.
"""

import importlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import cast

from contract.errors import ExtraMissing, JournalError
from contract.journal.base import Entry, Journal, JournalKind, Kind, Record, Write, shown
from contract.journal.commit import GroupCommit

__all__ = [
    "JOURNALS",
    "Entry",
    "GroupCommit",
    "Journal",
    "Kind",
    "Record",
    "Write",
    "is_local",
    "open_journal",
    "opened_journal",
]

JOURNALS = {
    "sqlite": "contract.journal.sqlite:SqliteJournal",
    "redis": "contract.journal.redis:RedisJournal",
    "rediss": "contract.journal.redis:RedisJournal",
}

EXPECTED = "a path, sqlite:///path or redis://host:port/0"


def open_journal(uri: str) -> Journal:
    """A path, or a URI of a scheme of the table; made where there is none. Raises JournalError, and
    ExtraMissing where the library that it needs is not installed."""
    return _kind(uri).at(uri)


@contextmanager
def opened_journal(uri: str) -> Iterator[Journal]:
    """A journal that is there already, for a while. Raises as `open_journal` does, and JournalError
    where there is none."""
    if not _kind(uri).is_at(uri):
        raise JournalError(
            f"journal {shown(uri)}: there is none; give journal.db of the state directory, or the "
            "URI that the service is given"
        )
    with closing(open_journal(uri)) as journal:
        yield journal


def is_local(uri: str) -> bool:
    """Whether it is a file of this machine."""
    return _scheme(uri) == "sqlite"


def _kind(uri: str) -> JournalKind:
    scheme = _scheme(uri)
    if scheme not in JOURNALS:
        raise JournalError(f"journal scheme {scheme!r} is unknown, expected {EXPECTED}")
    module, _, attribute = JOURNALS[scheme].partition(":")
    try:
        return cast(JournalKind, getattr(importlib.import_module(module), attribute))
    except ModuleNotFoundError as exc:
        if exc.name != "redis":
            raise
        raise ExtraMissing(
            f"journal {shown(uri)}: needs redis: pip install 'tandem-recall[redis]'"
        ) from exc


def _scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    return scheme if separator else "sqlite"
