"""Request bodies that the API's documentation shows. A test posts each of them."""

from typing import Any

from fastapi import Body


def _examples(**values: Any) -> Any:
    return Body(
        openapi_examples={
            name: {"summary": name.replace("_", " "), "value": value}
            for name, value in values.items()
        }
    )


RECOMMENDATION = _examples(
    session={"history": ["1", "2", "3"], "k": 10},
    known_user={"user_id": "1", "k": 10, "exclude": ["1"]},
    seen_and_new={"user_id": "1", "k": 10, "exclude_seen": False, "include": ["1", "2", "3"]},
    several_sources={
        "user_id": "1",
        "k": 10,
        "sources": {"model": 1.0, "similar": 0.9, "popular": 0.7},
    },
    diverse={"user_id": "1", "k": 10, "diversity": 0.3, "max_per_category": 3},
    exploring={"user_id": "1", "k": 10, "explore": 0.2, "explore_from": "new", "seed": 7},
    explained={"history": ["1", "2"], "k": 10, "explain": True},
)
BATCH = _examples(
    several={"requests": [{"user_id": "1", "k": 10}, {"history": ["1", "2", "3"], "k": 10}]},
)
ITEMS = _examples(
    one={"item_id": "new-1", "features": {}},
    several={"items": [{"item_id": "new-1", "features": {}}, {"item_id": "new-2", "features": {}}]},
    out_of_stock={"item_id": "new-1", "features": {}, "available": False},
)
PATCH = _examples(
    out_of_stock={"available": False},
    cheaper={"features": {"price": 9.5}},
    without_a_feature={"features": {"price": None}},
)
EVENT = _examples(
    one={"user_id": "1", "item_id": "2", "kind": "view"},
    several={"events": [{"user_id": "1", "item_id": "2"}, {"user_id": "1", "item_id": "3"}]},
)
