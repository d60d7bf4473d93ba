"""Bodies of the HTTP API. They never leave the routes."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue

from contract.attributes import AttributeKind
from service.conditions import BOUNDS
from service.request import Reserve, SourceName

# The last second of the year 9999. Milliseconds since 1970 lie beyond it, and are refused.
LAST_SECOND = 253_402_300_799

Id = Annotated[str, Field(min_length=1, max_length=256)]
EventKind = Annotated[str, Field(min_length=1, max_length=64)]


def _storable(features: dict[str, Any]) -> dict[str, Any]:
    """The journal holds strict JSON; Python's parser takes more."""
    try:
        orjson.dumps(features)
    except TypeError as error:
        raise ValueError(f"cannot be stored: {error}") from error
    return features


FILTERS: JsonSchemaValue = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [
            {"type": ["string", "number"]},
            {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
            {
                "type": "object",
                "properties": {bound: {"type": "number"} for bound in BOUNDS},
                "minProperties": 1,
                "additionalProperties": False,
            },
        ]
    },
}

Features = Annotated[dict[str, Any], AfterValidator(_storable)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Wanted(_Body):
    """What may be asked of a recommendation in a URL and in a body alike."""

    k: int = Field(50, ge=1, description="How many items.")
    exclude: list[Id] = Field([], description="Item ids to leave out.")
    exclude_seen: bool = Field(
        True, description="Leave out what the user has seen and what `history` names."
    )
    include: list[Id] | None = Field(None, description="The only items that may be answered.")
    category: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="A tag of any attribute that the items must have."
    )
    min_seq: int = Field(0, ge=0, description="Answer from this journal position on.")
    diversity: float = Field(
        0.0, ge=0, le=1, description="From 0, relevance alone, to 1, dissimilarity alone."
    )
    category_diversity: float = Field(
        0.0,
        ge=0,
        le=10,
        description="What each item of another category adds to an item's worth; relevance is 0 "
        "to 1.",
    )
    max_per_category: int | None = Field(
        None, ge=1, description="At most so many items of one category."
    )
    explore: float = Field(
        0.0, ge=0, le=1, description="Share of the places that is drawn by chance."
    )
    explore_from: Reserve = Field(
        "pool", description="Drawn from what comes behind the best, or from new items."
    )
    temperature: float = Field(
        1.0, gt=0, le=100, description="Of the draw: low keeps to relevance, high to chance."
    )
    seed: int | None = Field(
        None, ge=0, lt=2**63, description="Of the draw; by default the same for the same request."
    )
    explain: bool = Field(False, description="Say of each item why it is in the list.")


class RecommendationQuery(Wanted):
    filter: list[str] = Field(
        [], description="As in genres=Drama|War or year>=1990; the items must pass all of them."
    )
    sources: list[SourceName] = Field(
        [], alias="source", description="Where candidates come from, all of equal weight."
    )


class Touch(_Body):
    item_id: Id
    kind: EventKind | None = Field(
        None, description="Of the event, where the model reads several histories."
    )


class RecommendationRequest(Wanted):
    user_id: Id | None = None
    history: list[Id | Touch] | None = Field(
        None, description="Item ids, oldest first, instead of what the service knows of the user."
    )
    features: Features | None = Field(
        None, description="The user's profile, instead of the known one."
    )
    filters: Annotated[dict[str, Any], WithJsonSchema(FILTERS)] = Field(
        {}, description="Attribute -> a value, a list of which any will do, or bounds of a number."
    )
    sources: dict[SourceName, Annotated[float, Field(gt=0, le=1000)]] = Field(
        {}, description="Where candidates come from, and what each weighs; the model by default."
    )


class RecommendationRequests(_Body):
    requests: list[RecommendationRequest] = Field(min_length=1)


class Place(_Body):
    rank: int
    score: float


class Reasons(_Body):
    sources: dict[SourceName, Place] = Field(
        description="What recalled the item, and where it stood there."
    )
    interest: int | None = Field(description="The nearest of the user's vectors, from 0.")
    relevance: float = Field(description="The score, scaled to 0 to 1 over the candidates.")
    similarity: float = Field(description="The largest cosine with an item before it.")
    others: int = Field(description="Items before it of other categories.")
    explored: bool


class RecommendedItem(_Body):
    item_id: str
    score: float
    source: Literal["bundle", "overlay"]
    recalled_by: list[SourceName] = Field(
        [], description="What recalled it, where several sources were asked."
    )
    explain: Reasons | None = None


class Removed(_Body):
    """Of the first k neighbours, those that were not eligible, by the first reason of these."""

    gone: int
    seen: int
    excluded: int
    category: int


class Explanation(_Body):
    candidates: int = Field(description="Eligible items that the list was made from.")
    removed: Removed


class Recommendations(_Body):
    user_id: str | None
    items: list[RecommendedItem]
    source: Literal["model", "session", "fallback"]
    bundle: str = Field(description="The version of the one bundle that made this answer.")
    variant: str = Field(description="The variant that answered: a channel of the store.")
    seq: int = Field(description="Journal position that the answer includes.")
    explain: Explanation | None = None


class BatchOfRecommendations(_Body):
    answers: list[Recommendations] = Field(description="In the order of the requests.")


class SimilarItems(_Body):
    item_id: str
    items: list[RecommendedItem]
    bundle: str
    variant: str
    seq: int


class ItemBody(_Body):
    item_id: Id
    features: Features = {}
    available: bool = True


class ItemsBody(_Body):
    items: list[ItemBody] = Field(min_length=1)


class ItemPatch(_Body):
    available: bool | None = Field(None, description="Null or left out: as it is.")
    features: Features = Field(
        {}, description="Over the known ones; null removes one, the others stay."
    )
    if_seq: int | None = Field(
        None, ge=0, description="Only where this is the seq of its last write, else 409."
    )


class EventBody(_Body):
    user_id: Id
    item_id: Id
    timestamp: int | None = Field(
        None, ge=0, le=LAST_SECOND, description="Seconds since 1970; default: now."
    )
    kind: EventKind = Field(
        "view",
        description="The recipe says whether it counts as history, as seen, both or nothing.",
    )


class EventsBody(_Body):
    events: list[EventBody] = Field(min_length=1)


ALTERNATIVES = frozenset({"one", "many", "constrained-str", Touch.__name__})
"""What pydantic puts into the place of an error where a value may be of several kinds."""


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
    neighbours: list[RecommendedItem] = Field(description="The items nearest to it, best first.")
    bundle: str


class Refused(_Body):
    version: str
    reason: str


class VariantKnown(_Body):
    variant: str
    share: float = Field(description="Of all users, by weight.")
    version: str | None = Field(description="Null while it has no bundle.")
    refused: Refused | None


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
    attributes: dict[str, AttributeKind] = Field(description="What requests may filter by.")
    metrics: dict[str, float]
    forced: bool
    refused: Refused | None
    variants: list[VariantKnown]


class Reloaded(_Body):
    variant: str
    version: str
    swapped: bool


class FieldProblem(_Body):
    field: str
    problem: str


class ItemProblem(_Body):
    item: str
    problem: str


class ErrorDetail(_Body):
    code: str
    message: str
    fields: list[FieldProblem] | None = Field(None, description="What is wrong with its shape.")
    rows: list[ItemProblem] | None = Field(None, description="The bad items, the first 100.")
    count: int | None = Field(None, description="How many bad fields or items there are.")


class Error(_Body):
    error: ErrorDetail
