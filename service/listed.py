"""The plain list of a recall: rows and scores, of which items are made when they are looked at.

What is sent is put together from the bytes of the ids: to make fifty items and have them encoded
takes twice as long.
"""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import orjson

from contract.arrays import F32, I64
from service.answer import Answer, Item, as_sent
from service.overlay import Overlay

OPEN, SCORE, CLOSE, CUT = b',{"item_id":"', b'","score":', b',"source":"bundle"}', b"\n"
POSTED = b',"source":"overlay"}'
BEGIN, NEXT = b"[" + OPEN[1:], CLOSE + OPEN


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
        if isinstance(at, slice):
            return self._items(at)
        return self._items(slice(at, at + 1 or None))[0]

    def __iter__(self) -> Iterator[Item]:
        # A sequence's own would make all items anew for each of them.
        return iter(self._items(slice(None)))

    def _items(self, which: slice) -> list[Item]:
        base, ids = self.overlay.base, self.overlay.ids_of(self.rows[which])
        rows, scores = self.rows[which].tolist(), as_sent(self.scores[which])
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
    ids = overlay.quoted(rows)
    if not ids:
        return [orjson.dumps(list(one)) for one in lists]
    parts = [b""] * (2 * len(ids))
    parts[::2] = ids
    # As float32, in half the digits that the same numbers would have as Python's floats.
    scores = orjson.dumps(
        np.concatenate([one.scores for one in lists]), option=orjson.OPT_SERIALIZE_NUMPY
    )
    # What stands between two ids, score by score: one replacement and one cut in place of a
    # hundred small strings.
    between = scores[1:-1].replace(b",", NEXT + CUT + SCORE) + NEXT
    parts[1::2] = after = (SCORE + between).split(CUT)
    for at in np.flatnonzero(rows >= overlay.base).tolist():
        parts[2 * at + 1] = after[at].replace(CLOSE, POSTED)
    ends = np.cumsum([2 * len(one) for one in lists]).tolist()
    texts = [
        b"".join(parts[end - 2 * len(one) : end]) for one, end in zip(lists, ends, strict=True)
    ]
    return [BEGIN + text[: -len(OPEN)] + b"]" if text else b"[]" for text in texts]
