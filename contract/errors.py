"""Every error that Tandem raises on purpose. One tree; a message says what was found, what was
expected and what to do.

    TandemError
    ├── DataError               an input table is malformed: file, column, row
    ├── RecipeError             a recipe has an unknown key or an impossible value
    ├── FeatureError            a feature value has the wrong type or size: the field is named
    ├── SettingsError           an option of the service is out of bounds: it is named
    ├── ExtraMissing            an optional dependency is not installed: the pip command is named
    ├── TrainingError           training cannot go on (no samples, NaN loss)
    ├── StoreError              a store, channel or version does not exist
    │   └── DiskError           the disk of a store is full, or cannot be written
    ├── BundleError             a bundle is unreadable or damaged
    │   └── FormatError         a bundle is of a format that this release does not read
    ├── BackendError            the server that holds an index does not answer as it must
    ├── GateError               a bundle was built, and refused before its channel moved
    ├── JournalError            the journal cannot be opened, read or written
    │   └── JournalDamaged      what is written in its file cannot be read
    └── RequestError            what a client asked for cannot be answered as asked
        ├── MalformedRequest    a body, parameter or feature is not what the API says
        ├── BadItems            items of a request cannot be taken: every one is named
        ├── UnknownItem         no such item, in the bundle or the overlay
        ├── NotYetVisible       `min_seq` lies ahead of the journal
        ├── Conflict            someone else has written the item meanwhile
        ├── TooLarge            over a limit of the service: the limit is named
        ├── Unauthorized        the key is missing or unknown
        ├── Forbidden           the key does not open this
        ├── Overloaded          no capacity now; try again later
        └── NotReady            no bundle is loaded yet
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

LISTED = 100
"""So many things wrong with a request are listed in an answer; the others are counted."""


LONGEST = 60


def shown(value: object) -> str:
    """What was found in place of what is expected, as messages show it: its type, and the value as
    far as it is short."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'}"


class TandemError(Exception):
    """Base of the tree. `code` is the stable name that programs may match on, `details` what an
    answer says beside the message."""

    code = "error"
    details: Mapping[str, Any] = MappingProxyType({})


class DataError(TandemError):
    code = "bad_data"


class RecipeError(TandemError):
    code = "bad_recipe"


class FeatureError(TandemError):
    code = "bad_feature"


class SettingsError(TandemError):
    code = "bad_setting"


class ExtraMissing(TandemError):
    code = "extra_missing"


class TrainingError(TandemError):
    code = "training_failed"


class StoreError(TandemError):
    code = "bad_store"


class DiskError(StoreError):
    code = "disk_failed"


class BundleError(TandemError):
    code = "bad_bundle"


class FormatError(BundleError):
    code = "other_format"


class BackendError(TandemError):
    code = "backend_failed"


class GateError(TandemError):
    """`checks` are what the gate measured, the failed ones among them."""

    code = "refused_by_gate"

    def __init__(self, message: str, checks: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.checks = checks


class JournalError(TandemError):
    code = "journal_failed"


class JournalDamaged(JournalError):
    code = "journal_damaged"


class RequestError(TandemError):
    code = "bad_request"


class MalformedRequest(RequestError):
    code = "malformed_request"


class BadItem(NamedTuple):
    item: str
    problem: str


class BadItems(RequestError):
    code = "bad_items"

    def __init__(self, message: str, rows: Sequence[BadItem] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)
        if rows:
            self.details = {"rows": [row._asdict() for row in rows[:LISTED]], "count": len(rows)}


class UnknownItem(RequestError):
    code = "unknown_item"


class NotYetVisible(RequestError):
    code = "not_yet_visible"


class Conflict(RequestError):
    code = "conflict"


class TooLarge(RequestError):
    code = "too_large"


class Unauthorized(RequestError):
    code = "unauthorized"


class Forbidden(RequestError):
    code = "forbidden"


class Overloaded(RequestError):
    code = "overloaded"


class NotReady(RequestError):
    code = "not_ready"
