"""What a recall must answer, computed slowly and plainly: dicts, loops, and the towers."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from contract.arrays import F32
from contract.bundle import ITEM_TOWER, USER_TOWER, Bundle
from contract.features import Encoded

TOLERANCE = 1e-5


class Reference:
    """A bundle and what was written since, as plain values by item id."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.ids = [bundle.item_ids[row] for row in range(bundle.manifest.dims.items)]
        self.features: dict[str, dict[str, Any]] = {
            item_id: json.loads(bundle.attributes.raw(row)) for row, item_id in enumerate(self.ids)
        }
        items = self.features.values()
        self._categories = {item["category"] for item in items}
        self._tags = {tag for item in items for tag in item["tags"]}
        self.deleted: set[str] = set()
        self.unavailable: set[str] = set()
        self._vectors = dict(zip(self.ids, bundle.item_vectors, strict=True))
        self._history = dict(zip(self.ids, bundle.history_vectors, strict=True))
        self._popularity = dict(zip(self.ids, bundle.popularity.tolist(), strict=True))
        self._events: defaultdict[str, list[str]] = defaultdict(list)
        self._user_tower = _tower(bundle, USER_TOWER)
        self._item_tower = _tower(bundle, ITEM_TOWER)

    def post(self, item_id: str, features: Mapping[str, Any], available: bool = True) -> None:
        fields = self.bundle.manifest.features.items
        identity = self.bundle.item_identity[self.bundle.item_ids.row(item_id) + 1][None]
        vectors, history = _run(self._item_tower, identity, fields.encode([features]))
        self.features[item_id] = dict(features)
        self._vectors[item_id], self._history[item_id] = vectors[0], history[0]
        self._popularity.setdefault(item_id, 0.0)
        self.deleted.discard(item_id)
        (self.unavailable.discard if available else self.unavailable.add)(item_id)

    def patch(
        self, item_id: str, features: Mapping[str, Any], available: bool | None = None
    ) -> None:
        merged = {**self.features[item_id], **features}
        kept = {name: value for name, value in merged.items() if value is not None}
        before = item_id not in self.unavailable
        self.post(item_id, kept, before if available is None else available)

    def delete(self, item_id: str) -> None:
        self.deleted.add(item_id)

    def event(self, user_id: str, item_id: str) -> None:
        self._events[user_id].append(item_id)

    def seen(self, user_id: str | None) -> list[str]:
        """What the user touched, oldest first, unknown items among it."""
        if user_id is None:
            return []
        row = self.bundle.user_ids.row(user_id)
        before = [self.ids[r] for r in self.bundle.user_items(row)] if row >= 0 else []
        return before + self._events[user_id]

    def in_category(self, category: str) -> set[str]:
        """A value that training did not see is no category, whoever has it."""
        return {
            item_id
            for item_id, item in self.features.items()
            if (category == item.get("category") and category in self._categories)
            or (category in item.get("tags", ()) and category in self._tags)
        }

    def eligible(
        self,
        user_id: str | None = None,
        history: Sequence[str] = (),
        exclude: Sequence[str] = (),
        category: str | None = None,
    ) -> list[str]:
        """The items that a request may be answered with."""
        out = {*self.deleted, *self.unavailable, *self.seen(user_id), *history, *exclude}
        wanted = self.features.keys() if category is None else self.in_category(category)
        return [item_id for item_id in self._vectors if item_id in wanted and item_id not in out]

    def scores(
        self,
        user_id: str | None = None,
        history: Sequence[str] | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> dict[str, float]:
        """Every item with its score for this user."""
        vector = self._user_vector(
            -1 if user_id is None else self.bundle.user_ids.row(user_id),
            self.seen(user_id) if history is None else history,
            features,
        )
        return {item_id: float(item @ vector) for item_id, item in self._vectors.items()}

    def similarities(self, item_id: str) -> dict[str, float]:
        """Every other item with its score beside this one."""
        vector = self._vectors[item_id]
        others = self._vectors.keys() - {item_id}
        return {other: float(self._vectors[other] @ vector) for other in others}

    def shares(self) -> dict[str, float]:
        """Every item with its share of all interactions, which orders the fallback."""
        total = sum(self._popularity.values())
        return {item_id: count / total for item_id, count in self._popularity.items()}

    def _user_vector(
        self, row: int, history: Sequence[str], features: Mapping[str, Any] | None
    ) -> F32:
        bundle, schema = self.bundle, self.bundle.manifest.features
        if features is not None or row < 0:
            profile = schema.users.encode([features or {}])
        else:
            profile = Encoded(bundle.users.codes[[row]], bundle.users.numbers[[row]])
        length = schema.history_length
        recent = [self._history[item_id] for item_id in history if item_id in self._history]
        recent = recent[-length:]
        vectors = np.zeros((1, length, bundle.manifest.dims.history), np.float32)
        mask = np.zeros((1, length), np.float32)
        for place, vector in zip(range(length - len(recent), length), recent, strict=True):
            vectors[0, place], mask[0, place] = vector, 1.0
        identity = bundle.user_identity[row + 1][None]
        found = _run(self._user_tower, identity, profile, history=vectors, mask=mask)
        interest: F32 = found[0][0, 0]
        return interest


def assert_best(
    answer: Mapping[str, Any], scores: Mapping[str, float], eligible: Sequence[str], k: int
) -> None:
    """The answer holds the best k of the eligible items, in order, with their scores; items of
    equal scores may stand in any order."""
    ids = [item["item_id"] for item in answer["items"]]
    found = [item["score"] for item in answer["items"]]
    best = sorted((scores[item_id] for item_id in eligible), reverse=True)[:k]
    assert len(ids) == len(set(ids)) == len(best)
    assert set(ids) <= set(eligible)
    assert np.allclose(found, best, atol=TOLERANCE, rtol=0)
    assert np.allclose(found, [scores[item_id] for item_id in ids], atol=TOLERANCE, rtol=0)


def _tower(bundle: Bundle, name: str) -> ort.InferenceSession:
    return ort.InferenceSession(bundle.path / name, providers=["CPUExecutionProvider"])


def _run(tower: ort.InferenceSession, identity: F32, encoded: Encoded, **more: F32) -> list[F32]:
    values = {"identity": identity, "codes": encoded.codes, "numbers": encoded.numbers, **more}
    wanted = {node.name for node in tower.get_inputs()}
    found: list[F32] = tower.run(None, {n: v for n, v in values.items() if n in wanted})
    return found
