"""The bundles that are served, and the administration of them."""

from fastapi import APIRouter
from fastapi.responses import Response

from contract.errors import BundleError
from service import schemas
from service.routes.parts import (
    ADMIN,
    ERRORS,
    KEYED,
    Administered,
    Use,
    json_response,
)
from service.variants import Variant

router = APIRouter(prefix="/v1/bundle", tags=["bundle"], responses=ERRORS)


@router.get("", response_model=schemas.BundleKnown)
async def get_bundle(parts: Use, variant: Administered) -> Response:
    """The bundle that is served, the one that was refused, if any, and all the variants."""
    live = variant.live
    state, loaded_at, refusal = live.state(), live.loaded_at, live.refusal
    manifest = state.snapshot.bundle.manifest
    known = {
        "version": manifest.version,
        "model": manifest.model,
        "backend": manifest.index.backend,
        "channel": variant.name,
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
        "variants": [
            {
                "variant": one.name,
                "share": parts.variants.shares[one.name],
                "version": one.live.version,
                "refused": one.live.refusal,
            }
            for one in parts.variants
        ],
    }
    return json_response(known)


@router.post("/reload", response_model=schemas.Reloaded, openapi_extra=KEYED, responses=ADMIN)
async def reload(variant: Administered) -> Response:
    """Look at the channel now; also tries a refused bundle again."""
    return _served(variant, await variant.swapper.check(retry=True))


@router.post("/rollback", response_model=schemas.Reloaded, openapi_extra=KEYED, responses=ADMIN)
async def rollback(variant: Administered) -> Response:
    """Point the channel at what it pointed at before; every worker follows."""
    return _served(variant, await variant.swapper.rollback())


def _served(variant: Variant, swapped: bool) -> Response:
    refusal = variant.live.refusal
    if refusal:
        raise BundleError(refusal.reason)
    version = variant.live.state().snapshot.version
    return json_response({"variant": variant.name, "version": version, "swapped": swapped})
