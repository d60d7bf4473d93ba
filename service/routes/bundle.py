"""The bundle that is served, and the administration of it."""

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from contract.errors import BundleError
from service import schemas
from service.routes.parts import ADMIN, ERRORS, Parts, Use, admin, json_response

router = APIRouter(prefix="/v1/bundle", tags=["bundle"], responses=ERRORS)


@router.get("", response_model=schemas.BundleKnown)
async def get_bundle(parts: Use) -> Response:
    """The bundle that is served, and the one that was refused, if any."""
    live = parts.live
    state, loaded_at, refusal = live.state(), live.loaded_at, live.refusal
    manifest = state.snapshot.bundle.manifest
    known = {
        "version": manifest.version,
        "model": manifest.model,
        "backend": manifest.index.backend,
        "channel": parts.settings.channel,
        "seq": live.seq,
        "overlay_items": len(state.overlay),
        "loaded_at": loaded_at,
        "created_at": manifest.created_at,
        "items": manifest.dims.items,
        "users": manifest.dims.users,
        "attributes": manifest.attributes.kinds,
        "metrics": manifest.metrics,
        "forced": manifest.forced,
        "refused": refusal,
    }
    return json_response(known)


@router.post("/reload", response_model=schemas.Reloaded, dependencies=[Depends(admin)])
async def reload(parts: Use) -> Response:
    """Look at the channel now; also tries a refused bundle again."""
    return _served(parts, await parts.swapper.check(retry=True))


@router.post(
    "/rollback", response_model=schemas.Reloaded, dependencies=[Depends(admin)], responses=ADMIN
)
async def rollback(parts: Use) -> Response:
    """Point the channel at what it pointed at before; every worker follows."""
    return _served(parts, await parts.swapper.rollback())


def _served(parts: Parts, swapped: bool) -> Response:
    refusal = parts.live.refusal
    if refusal:
        raise BundleError(refusal.reason)
    return json_response({"version": parts.live.state().snapshot.version, "swapped": swapped})
