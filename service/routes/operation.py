"""For those who operate the service: alive, ready, metrics."""

from fastapi import APIRouter
from fastapi.responses import Response

from service.metrics import exposition
from service.routes.parts import ERRORS, Use, json_response

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def healthz() -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


@router.get("/readyz", responses={503: ERRORS[503]})
async def readyz(parts: Use) -> Response:
    """A bundle is loaded."""
    return json_response({"status": "ready", "bundle": parts.live.state().snapshot.version})


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """The sums over all workers, for Prometheus."""
    text, content_type = exposition()
    return Response(text, media_type=content_type)
