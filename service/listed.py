"""The plain list of a recall: rows and scores, of which items are made when they are looked at.

What is sent is put together from the bytes of the ids: to make fifty items and have them encoded
takes twice as long.
"""

from collections.abc import Sequence
from typing import overload

import numpy as np
import orjson

from contract.arrays import F32, I64
from service.answer import Answer, Item
from service.overlay import Overlay

BEGIN, SCORE, END = b'{"item_id":"', b'","score":', b',"source":"bundle"},'


class Listed(Sequence[Item]):
    """Items of bundle and overlay."""

    def __init__(self, overlay: Overlay, rows: I64, scores: F32) -> None:
        """rows (n,), the best first; scores (n,)."""
        self.overlay, self.rows, self.scores = overlay, rows, scores

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        return self._items()[at]

    def _items(self) -> list[Item]:
        base, ids = self.overlay.base, self.overlay.ids_of(self.rows)
        rows, scores = self.rows.tolist(), self.scores.tolist()
        return [
            Item(item_id, score, "bundle" if row < base else "overlay")
            for row, item_id, score in zip(rows, ids, scores, strict=True)
        ]


def encoded_items(answers: Sequence[Answer]) -> list[object]:
    """The items of each answer, of one overlay, as orjson takes them."""
    lists = [answer.items for answer in answers if isinstance(answer.items, Listed)]
    encoded = map(orjson.Fragment, _as_json(lists) if lists else ())
    return [
        next(encoded) if isinstance(answer.items, Listed) else answer.items for answer in answers
    ]


def _as_json(lists: Sequence[Listed]) -> list[bytes]:
    overlay, rows = lists[0].overlay, np.concatenate([one.rows for one in lists])
    ids = overlay.quotable(rows)
    if not ids:
        return [orjson.dumps(list(one)) for one in lists]
    parts: list[bytes | memoryview] = [BEGIN, b"", SCORE, b"", END] * len(ids)
    parts[1::5] = ids
    scores = np.concatenate([one.scores for one in lists])
    parts[3::5] = orjson.dumps(scores.tolist())[1:-1].split(b",")
    ends = np.cumsum([5 * len(one) for one in lists]).tolist()
    texts = [
        b"".join(parts[end - 5 * len(one) : end]) for one, end in zip(lists, ends, strict=True)
    ]
    return [b"[%b]" % text[:-1] for text in texts]
