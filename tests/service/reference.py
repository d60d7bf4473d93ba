"""What a recall must answer, computed slowly and plainly: dicts, loops, and the towers."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any

import numpy as np
import onnxruntime as ort

from contract.arrays import F32
from contract.bundle import ITEM_TOWER, USER_TOWER, Bundle, ItemState
from contract.features import Encoded
from contract.kinds import HISTORY, SEEN

TOLERANCE = 1e-5
BITS = {"both": HISTORY + SEEN, "history": HISTORY, "seen": SEEN, "nothing": 0}
Given = str | Mapping[str, str]
"""An entry of a request's history: an item id, or an item id and a kind."""
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {"gte": ge, "gt": gt, "lte": le, "lt": lt}


class Reference:
    """A bundle and what was written since, as plain values by item id."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.ids = [bundle.item_ids[row] for row in range(bundle.manifest.dims.items)]
        self.features: dict[str, dict[str, Any]] = {
            item_id: json.loads(bundle.attributes.raw(row)) for row, item_id in enumerate(self.ids)
        }
        states = dict(zip(self.ids, bundle.item_states.tolist(), strict=True))
        self.deleted = {i for i, state in states.items() if state == ItemState.DELETED}
        self.unavailable = {i for i, state in states.items() if state == ItemState.UNAVAILABLE}
        self._embedded = {
            item_id: (bundle.item_vectors[row], bundle.history_vectors[row])
            for row, item_id in enumerate(self.ids)
        }
        """Item and history vectors. Of what was posted they are made when they are asked for: a
        test that only wants to know what is eligible posts tens of thousands."""
        self._popularity = dict(zip(self.ids, bundle.popularity.tolist(), strict=True))
        self._touched: defaultdict[str, list[tuple[str, int, int]]] = defaultdict(list)
        self._user_tower = _tower(bundle, USER_TOWER)
        self._item_tower = _tower(bundle, ITEM_TOWER)

    def post(self, item_id: str, features: Mapping[str, Any], available: bool = True) -> None:
        self.features[item_id] = dict(features)
        self._embedded.pop(item_id, None)
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

    def event(self, user_id: str, item_id: str, kind: str = "view") -> None:
        meaning = self.bundle.manifest.events.root.get(kind, "both")
        self._touched[user_id].append((item_id, BITS[meaning], self._number(kind)))

    def _number(self, kind: str | None) -> int:
        """Which history an event of this kind belongs to."""
        names = self.bundle.manifest.features.histories
        return names.index(kind) + 1 if kind in names else 0

    def knows(self, item_id: str) -> bool:
        return item_id in self.features and item_id not in self.deleted

    def seen(self, user_id: str | None) -> list[str]:
        """What is not to be recommended to the user again, unknown items among it."""
        return [item_id for item_id, _ in self._of(user_id, SEEN)]

    def history(self, user_id: str | None) -> list[str]:
        """What the user tower is told, oldest first, unknown items among it."""
        return [item_id for item_id, _ in self._of(user_id, HISTORY)]

    def _of(self, user_id: str | None, bit: int) -> list[tuple[str, int]]:
        """Item ids, and which history each belongs to."""
        if user_id is None:
            return []
        row = self.bundle.user_ids.row(user_id)
        rows, flags = self.bundle.user_items(row) if row >= 0 else ((), ())
        before = [(self.ids[r], f % 4, f // 4) for r, f in zip(rows, flags, strict=True)]
        touched = before + self._touched[user_id]
        return [(item_id, number) for item_id, bits, number in touched if bits & bit]

    def eligible(
        self,
        user_id: str | None = None,
        history: Sequence[Given] = (),
        exclude: Sequence[str] = (),
        category: str | None = None,
        filters: Mapping[str, Any] | None = None,
        include: Sequence[str] | None = None,
        exclude_seen: bool = True,
    ) -> list[str]:
        """The items that a request may be answered with; `filters` as in the body of a POST."""
        out = {*self.deleted, *self.unavailable, *exclude}
        if exclude_seen:
            out |= {*self.seen(user_id), *(_touch(given)[0] for given in history)}
        return [
            item_id
            for item_id in self.features
            if item_id not in out
            and (include is None or item_id in include)
            and (category is None or category in self._tags(item_id))
            and all(_has(self.features[item_id].get(n), w) for n, w in (filters or {}).items())
        ]

    def _tags(self, item_id: str) -> list[Any]:
        names = self.bundle.manifest.attributes.tags
        return [tag for name in names for tag in _list(self.features[item_id].get(name))]

    def scores(
        self,
        user_id: str | None = None,
        history: Sequence[Given] | None = None,
        features: Mapping[str, Any] | None = None,
    ) -> dict[str, float]:
        """Every item with its score for this user."""
        vector = self._user_vector(
            -1 if user_id is None else self.bundle.user_ids.row(user_id),
            self._of(user_id, HISTORY)
            if history is None
            else [(item_id, self._number(kind)) for item_id, kind in map(_touch, history)],
            features,
        )
        return {item_id: float(self._vectors(item_id)[0] @ vector) for item_id in self.features}

    def similarities(self, item_id: str) -> dict[str, float]:
        """Every other item with its score beside this one."""
        vector, _ = self._vectors(item_id)
        others = self.features.keys() - {item_id}
        return {other: float(self._vectors(other)[0] @ vector) for other in others}

    def _vectors(self, item_id: str) -> tuple[F32, F32]:
        found = self._embedded.get(item_id)
        if found is None:
            features = self.features[item_id]
            identity = self.bundle.item_identity[self.bundle.item_ids.row(item_id) + 1][None]
            encoded = self.bundle.manifest.features.items.encode([features], beside=features)
            vectors, history = _run(self._item_tower, identity, encoded)
            found = self._embedded[item_id] = vectors[0], history[0]
        return found

    def shares(self) -> dict[str, float]:
        """Every item with its share of all interactions, which orders the fallback."""
        total = sum(self._popularity.values())
        return {item_id: count / total for item_id, count in self._popularity.items()}

    def _user_vector(
        self, row: int, history: Sequence[tuple[str, int]], features: Mapping[str, Any] | None
    ) -> F32:
        bundle, schema = self.bundle, self.bundle.manifest.features
        if features is not None or row < 0:
            profile = schema.users.encode([features or {}])
        else:
            profile = Encoded(bundle.users.codes[[row]], bundle.users.numbers[[row]])
        length = schema.history_length
        known = [(item_id, number) for item_id, number in history if item_id in self.features]
        recent = [(self._vectors(item_id)[1], number) for item_id, number in known[-length:]]
        vectors = np.zeros((1, length, bundle.manifest.dims.history), np.float32)
        mask, kinds = np.zeros((1, length), np.float32), np.zeros((1, length), np.int32)
        for place, one in zip(range(length - len(recent), length), recent, strict=True):
            (vectors[0, place], kinds[0, place]), mask[0, place] = one, 1.0
        identity = bundle.user_identity[row + 1][None]
        found = _run(self._user_tower, identity, profile, history=vectors, mask=mask, kinds=kinds)
        interest: F32 = found[0][0, 0]
        return interest


def _touch(given: Given) -> tuple[str, str | None]:
    """Item id and kind of an entry of a request's history."""
    return (given, None) if isinstance(given, str) else (given["item_id"], given.get("kind"))


def _has(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return value is not None and all(BOUNDS[b](value, bound) for b, bound in wanted.items())
    return any(one in _list(value) for one in (wanted if isinstance(wanted, list) else [wanted]))


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.split("|")
    return value if isinstance(value, list) else [value]


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


def _run(tower: ort.InferenceSession, identity: F32, encoded: Encoded, **more: Any) -> list[F32]:
    values = {"identity": identity, "codes": encoded.codes, "numbers": encoded.numbers, **more}
    wanted = {node.name for node in tower.get_inputs()}
    found: list[F32] = tower.run(None, {n: v for n, v in values.items() if n in wanted})
    return found
