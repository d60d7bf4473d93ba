"""Items as they are posted: what of them the bundle's schema can take."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contract.errors import BadItem, BadItems, FeatureError
from contract.features import Encoded
from service.snapshot import Snapshot


def encode_items(snapshot: Snapshot, bodies: Sequence[Mapping[str, Any]]) -> Encoded:
    """Raises BadItems naming every item with a feature that cannot be encoded."""
    try:
        return snapshot.bundle.encode_items([_post(body) for body in bodies])
    except FeatureError:
        # All at once is several times as fast, and stops at the first; one by one names all.
        raise _refusal(list(_bad(snapshot, bodies))) from None


def check_items(snapshot: Snapshot, bodies: Sequence[Mapping[str, Any]]) -> None:
    """Raises BadItems naming every item that stands there twice or cannot be encoded."""
    counts = Counter(body["item_id"] for body in bodies)
    bad = [
        BadItem(item_id, f"stands {times} times; send every item once")
        for item_id, times in counts.items()
        if times > 1
    ]
    try:
        encode_items(snapshot, bodies)
    except BadItems as error:
        bad += error.rows
    if bad:
        raise _refusal(bad)


def _refusal(bad: Sequence[BadItem]) -> BadItems:
    more = f" (and {len(bad) - 1} more; nothing was written)" if len(bad) > 1 else ""
    return BadItems(f"item '{bad[0].item}': {bad[0].problem}{more}", bad)


def _bad(snapshot: Snapshot, bodies: Sequence[Mapping[str, Any]]) -> Iterator[BadItem]:
    for body in bodies:
        try:
            snapshot.bundle.encode_items([_post(body)])
        except FeatureError as error:
            yield BadItem(body["item_id"], str(error))


def _post(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return body["item_id"], body.get("features", {})
