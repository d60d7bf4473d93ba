"""What the service knows of an item, from bundle or overlay, and what a change makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from service.state import State


@dataclass(frozen=True)
class Known:
    features: Mapping[str, Any]
    available: bool
    source: Literal["bundle", "overlay"]
    seq: int | None
    """Of its last write; None for an item that was not written since the bundle."""

    def patched(self, features: Mapping[str, Any], available: bool | None) -> dict[str, Any]:
        """What a post would have to say of it: `features` over those known, None removes one."""
        merged = {**self.features, **features}
        return {
            "features": {name: value for name, value in merged.items() if value is not None},
            "available": self.available if available is None else available,
        }


def known(state: State, item_id: str) -> Known:
    """Raises UnknownItem."""
    posted = state.overlay.item(item_id)
    if posted:
        return Known(posted.features, posted.available, "overlay", posted.seq)
    row = state.overlay.require(item_id)
    features = orjson.loads(state.snapshot.bundle.attributes.raw(row))
    return Known(features, not state.overlay.dead[row], "bundle", None)
