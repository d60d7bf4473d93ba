"""Recommendations, and the items that are like an item."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from service import engine, schemas
from service.answer import Answer
from service.conditions import count_values, from_json, from_text
from service.examples import RECOMMENDATION
from service.metrics import Metrics
from service.request import Recall
from service.routes.parts import ERRORS, NOT_FOUND, Id, K, Parts, Use, json_response, limit, limit_k
from service.state import State

router = APIRouter(prefix="/v1", tags=["recall"], responses=ERRORS)


@router.get("/recommendations/{user_id:path}", response_model=schemas.Recommendations)
async def get_recommendations(
    parts: Use,
    user_id: Id,
    k: K = 50,
    exclude: Annotated[list[str], Query(description="Item ids to leave out; repeat it.")] = [],  # noqa: B006
    exclude_seen: Annotated[bool, Query(description="Leave out what the user touched.")] = True,
    include: Annotated[
        list[str] | None, Query(description="The only items that may be answered; repeat it.")
    ] = None,
    category: Annotated[str | None, Query(description="A tag of any attribute.")] = None,
    filters: Annotated[
        list[str],
        Query(alias="filter", description="As in genres=Drama|War or year>=1990; repeat it."),
    ] = [],  # noqa: B006
    min_seq: Annotated[int, Query(ge=0, description="Answer from this journal position on.")] = 0,
) -> Response:
    """The k best items for a user, without those they have touched."""
    state = parts.live.state(min_seq)
    wanted = Recall(
        k=k,
        user_id=user_id,
        exclude=exclude,
        exclude_seen=exclude_seen,
        include=include,
        category=category,
        conditions=from_text(filters, state.attributes),
    )
    return _recommend(parts, state, wanted)


@router.post("/recommendations", response_model=schemas.Recommendations)
async def post_recommendations(
    parts: Use, body: Annotated[schemas.RecommendationRequest, RECOMMENDATION]
) -> Response:
    """The same with everything in the body: sessions, unknown users, a profile."""
    state = parts.live.state(body.min_seq)
    wanted = Recall(
        k=body.k,
        user_id=body.user_id,
        history=body.history,
        features=body.features,
        exclude=body.exclude,
        exclude_seen=body.exclude_seen,
        include=body.include,
        category=body.category,
        conditions=from_json(body.filters, state.attributes),
    )
    return _recommend(parts, state, wanted)


@router.get(
    "/items/{item_id:path}/similar", response_model=schemas.SimilarItems, responses=NOT_FOUND
)
async def get_similar(parts: Use, item_id: Id, k: K = 50) -> Response:
    """The k items nearest to an item."""
    limit_k(parts, k)
    state = parts.live.state()
    answer = engine.similar(state, item_id, k)
    return json_response(
        {
            "item_id": item_id,
            "items": answer.items,
            "bundle": state.snapshot.version,
            "seq": parts.live.seq,
        }
    )


def _recommend(parts: Parts, state: State, wanted: Recall) -> Response:
    limit_k(parts, wanted.k)
    limit("history", len(wanted.history or ()), parts.settings.max_history)
    limit("exclude", len(wanted.exclude), parts.settings.max_exclude)
    limit("include", len(wanted.include or ()), parts.settings.max_include)
    limit("filters", count_values(wanted.conditions), parts.settings.max_filters)
    answer = engine.recall(state, wanted)
    _measure(parts.metrics, answer)
    return json_response(
        {
            "user_id": wanted.user_id,
            "items": answer.items,
            "source": answer.source,
            "bundle": state.snapshot.version,
            "variant": parts.settings.channel,
            "seq": parts.live.seq,
        }
    )


def _measure(metrics: Metrics, answer: Answer) -> None:
    stages = answer.stages
    metrics.stage_seconds.labels("encode").observe(stages.encode)
    metrics.stage_seconds.labels("tower").observe(stages.tower)
    metrics.stage_seconds.labels("search").observe(stages.search)
    metrics.stage_seconds.labels("merge").observe(stages.merge)
    metrics.recall_seconds.observe(stages.total)
    metrics.answers.labels(answer.source).inc()
    if answer.widened:
        metrics.widened.inc()
    if answer.exact:
        metrics.exact.inc()
