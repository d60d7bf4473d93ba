"""The description of a bundle: `manifest.json`, written last. Normative: docs/bundle-format.md."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from contract.attributes import Attributes
from contract.errors import BundleError, FormatError
from contract.features import Encoded, Schema
from contract.files import read_small
from contract.kinds import Kinds
from contract.popularity import Popularity
from contract.reference import Reference

FORMAT = 1
NAME = "manifest.json"
UPGRADE = "publish the run again: tandem publish RUN --to STORE"
"""Of a format that is not read any more."""

Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Part):
    size: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Point(_Part):
    """What one search effort measured, on one thread."""

    effort: Count
    recall: float
    p50_us: float
    p99_us: float


class Index(_Part):
    """The backend that searches the item vectors, and both of its parameter sets."""

    backend: str
    build: dict[str, Any] = {}
    search: dict[str, Any] = {}
    curve: tuple[Point, ...] = ()
    """Recall against latency of every effort that was tried; empty when it was not tuned."""
    why: str = ""
    """How the backend and its effort were chosen."""
    target_recall: float | None = None
    """The effort is the least that found this share of the first `target_k`; None: not tuned."""
    target_k: int | None = None


class Dims(_Part):
    """The sizes that the arrays of a bundle are checked against."""

    items: Count
    users: Count
    dim: Annotated[int, Field(ge=1)]
    interests: Annotated[int, Field(ge=1)]
    history: Annotated[int, Field(ge=1)]
    item_identity: Count
    user_identity: Count


class Check(_Part):
    """One measurement of the gate."""

    check: str
    wanted: str
    found: str
    passed: bool


class Manifest(_Part):
    format: int
    version: str
    created_at: AwareDatetime
    model: str
    recipe: dict[str, Any]
    dims: Dims
    index: Index
    features: Schema
    events: Kinds = Kinds()
    attributes: Attributes
    popularity: Popularity = Popularity()
    reference: Reference | None = None
    files: dict[str, FileEntry]
    metrics: dict[str, float]
    gate: tuple[Check, ...]
    forced: bool = False
    seq: Count = 0
    parent: str | None = None

    @cached_property
    def item_names(self) -> frozenset[str]:
        """Of the features and attributes of items."""
        return self.features.items.names.union(self.attributes.kinds)

    def encode_items(self, items: Sequence[Mapping[str, object]]) -> Encoded:
        """Items as they are posted, with features and attributes. Raises FeatureError."""
        encoded = self.features.items.encode(items, beside=self.attributes.kinds)
        for item in items:
            self.attributes.check(item)
        return encoded


def read_manifest(directory: Path) -> Manifest:
    """Raises BundleError when there is none, or when it is not one that this release reads."""
    path = directory / NAME
    try:
        text = read_small(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); publish again") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, name: str) -> Manifest:
    try:
        # The format is looked at first: a newer manifest may well have other fields.
        found = _Format.model_validate_json(text).format
        if found != FORMAT:
            raise FormatError(
                f"{name}: bundle format {found}, this release reads format {FORMAT}; "
                + ("upgrade the service" if found > FORMAT else UPGRADE)
            )
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "document"
        raise BundleError(f"{name}: {key}: {first['msg']}; publish the run again") from error


class _Format(BaseModel):
    format: int
