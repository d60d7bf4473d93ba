"""Bodies of the HTTP API. They never leave the routes."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

# The last second of the year 9999. Milliseconds since 1970 lie beyond it, and are refused.
LAST_SECOND = 253_402_300_799

Id = Annotated[str, Field(min_length=1, max_length=256)]


def _storable(features: dict[str, Any]) -> dict[str, Any]:
    """The journal holds strict JSON; Python's parser takes more."""
    try:
        orjson.dumps(features)
    except TypeError as error:
        raise ValueError(f"cannot be stored: {error}") from error
    return features


Features = Annotated[dict[str, Any], AfterValidator(_storable)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecommendationRequest(_Body):
    user_id: Id | None = None
    history: list[Id] | None = Field(
        None, description="Item ids, oldest first, instead of what the service knows of the user."
    )
    features: Features | None = Field(
        None, description="The user's profile, instead of the known one."
    )
    k: int = Field(50, ge=1)
    exclude: list[Id] = []
    category: str | None = None
    min_seq: int = Field(0, ge=0)


class RecommendedItem(_Body):
    item_id: str
    score: float
    source: Literal["bundle", "overlay"]


class Recommendations(_Body):
    user_id: str | None
    items: list[RecommendedItem]
    source: Literal["model", "session", "fallback"]
    bundle: str = Field(description="The version of the one bundle that made this answer.")
    variant: str = Field(description="The channel that the bundle was published to.")
    seq: int = Field(description="Journal position that the answer includes.")


class SimilarItems(_Body):
    item_id: str
    items: list[RecommendedItem]
    bundle: str
    seq: int


class ItemBody(_Body):
    item_id: Id
    features: Features = {}
    available: bool = True


class ItemsBody(_Body):
    items: list[ItemBody] = Field(min_length=1)


class EventBody(_Body):
    user_id: Id
    item_id: Id
    timestamp: int | None = Field(
        None, ge=0, le=LAST_SECOND, description="Seconds since 1970; default: now."
    )
    kind: str = Field(
        "view",
        min_length=1,
        max_length=64,
        description="The recipe says whether it counts as history, as seen, both or nothing.",
    )


class EventsBody(_Body):
    events: list[EventBody] = Field(min_length=1)


def _has(key: str) -> Discriminator:
    def tag(body: Any) -> str:
        return "many" if isinstance(body, dict) and key in body else "one"

    return Discriminator(tag)


OneOrMoreItems = Annotated[
    Annotated[ItemBody, Tag("one")] | Annotated[ItemsBody, Tag("many")], _has("items")
]
OneOrMoreEvents = Annotated[
    Annotated[EventBody, Tag("one")] | Annotated[EventsBody, Tag("many")], _has("events")
]


class ItemsWritten(_Body):
    seq: int
    items: list[str]


class Written(_Body):
    seq: int


class ItemKnown(_Body):
    item_id: str
    features: dict[str, Any]
    available: bool
    source: Literal["bundle", "overlay"]
    seq: int | None = Field(description="Of its last write; null for an item of the bundle.")
    bundle: str


class Refused(_Body):
    version: str
    reason: str


class BundleKnown(_Body):
    version: str
    model: str
    backend: str
    channel: str
    seq: int
    overlay_items: int
    loaded_at: str
    created_at: str
    items: int
    users: int
    metrics: dict[str, float]
    forced: bool
    refused: Refused | None


class Reloaded(_Body):
    version: str
    swapped: bool


class ErrorDetail(BaseModel):
    code: str
    message: str


class Error(_Body):
    error: ErrorDetail
