"""For those who operate the service: alive, ready, metrics."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from service.metrics import exposition
from service.routes.parts import ERRORS, Use, json_response

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def healthz() -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


@router.get("/readyz", responses={503: ERRORS[503]})
async def readyz(parts: Use) -> Response:
    """The main variant has a bundle."""
    return json_response(
        {"status": "ready", "bundle": parts.variants.main.live.state().snapshot.version}
    )


@router.get("/metrics", response_class=PlainTextResponse, responses={401: ERRORS[401]})
async def metrics() -> Response:
    """The sums over all workers, for Prometheus."""
    text, content_type = exposition()
    return Response(text, media_type=content_type)
