"""Every error that Tandem raises on purpose. One tree; a message says what was found, what was
expected and what to do.

    TandemError
    ├── DataError               an input table is malformed: file, column, row
    ├── RecipeError             a recipe has an unknown key or an impossible value
    ├── FeatureError            a feature value has the wrong type or size: the field is named
    ├── SettingsError           an option of the service is out of bounds: it is named
    ├── ExtraMissing            an optional dependency is not installed: the pip command is named
    ├── TrainingError           training cannot go on (no samples, NaN loss)
    ├── StoreError              a store, channel or version does not exist or cannot be written
    ├── BundleError             a bundle is unreadable, damaged or of another format
    ├── BackendError            the server that holds an index does not answer as it must
    ├── GateError               a bundle was built, and refused before its channel moved
    ├── JournalError            the journal cannot be opened, read or written
    └── RequestError            what a client asked for cannot be answered as asked
        ├── MalformedRequest    a body, parameter or feature is not what the API says
        ├── UnknownItem         no such item, in the bundle or the overlay
        ├── NotYetVisible       `min_seq` lies ahead of the journal
        ├── TooLarge            over a limit of the service: the limit is named
        ├── Forbidden           the administration key is missing or wrong
        ├── Overloaded          no capacity now; try again later
        └── NotReady            no bundle is loaded yet
"""

from typing import Any


class TandemError(Exception):
    """Base of the tree. `code` is the stable name that programs may match on."""

    code = "error"


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


class BundleError(TandemError):
    code = "bad_bundle"


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


class RequestError(TandemError):
    code = "bad_request"


class MalformedRequest(RequestError):
    code = "malformed_request"


class UnknownItem(RequestError):
    code = "unknown_item"


class NotYetVisible(RequestError):
    code = "not_yet_visible"


class TooLarge(RequestError):
    code = "too_large"


class Forbidden(RequestError):
    code = "forbidden"


class Overloaded(RequestError):
    code = "overloaded"


class NotReady(RequestError):
    code = "not_ready"
