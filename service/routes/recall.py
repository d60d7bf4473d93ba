"""Recommendations, and the items that are like an item."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from service import engine, schemas
from service.answer import Answer
from service.examples import RECOMMENDATION
from service.metrics import Metrics
from service.request import Recall
from service.routes.parts import ERRORS, NOT_FOUND, Id, K, Parts, Use, json_response, limit, limit_k

router = APIRouter(prefix="/v1", tags=["recall"], responses=ERRORS)


@router.get("/recommendations/{user_id:path}", response_model=schemas.Recommendations)
async def get_recommendations(
    parts: Use,
    user_id: Id,
    k: K = 50,
    exclude: Annotated[list[str], Query(description="Item ids to leave out; repeat it.")] = [],  # noqa: B006
    category: Annotated[str | None, Query(description="Value of a category feature.")] = None,
    min_seq: Annotated[int, Query(ge=0, description="Answer from this journal position on.")] = 0,
) -> Response:
    """The k best items for a user, without those they have touched."""
    wanted = Recall(k=k, user_id=user_id, exclude=exclude, category=category)
    return _recommend(parts, wanted, min_seq)


@router.post("/recommendations", response_model=schemas.Recommendations)
async def post_recommendations(
    parts: Use, body: Annotated[schemas.RecommendationRequest, RECOMMENDATION]
) -> Response:
    """The same with everything in the body: sessions, unknown users, a profile."""
    wanted = Recall(
        k=body.k,
        user_id=body.user_id,
        history=body.history,
        features=body.features,
        exclude=body.exclude,
        category=body.category,
    )
    return _recommend(parts, wanted, body.min_seq)


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


def _recommend(parts: Parts, wanted: Recall, min_seq: int) -> Response:
    limit_k(parts, wanted.k)
    limit("history", len(wanted.history or ()), parts.settings.max_history)
    limit("exclude", len(wanted.exclude), parts.settings.max_exclude)
    state = parts.live.state(min_seq)
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
