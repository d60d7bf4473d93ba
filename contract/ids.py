"""External ids and rows: the two-way map, as four arrays that can be memory-mapped.

A Python dict of ten million ids would cost each worker over a gigabyte. Here the ids lie as UTF-8
text with offsets, beside their 64-bit hashes in sorted order with the row of each, so a lookup is
one binary search and one comparison of bytes, and all workers share the pages.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from contract.arrays import I64, U8, U64
from contract.errors import DataError

UNKNOWN = -1


class Texts:
    """n strings: text (bytes,) uint8 holds them end to end, offsets (n + 1,) int64 says where each
    begins."""

    def __init__(self, text: U8, offsets: I64) -> None:
        self.text, self.offsets = text, offsets
        # Scalar reads of a memoryview are several times as fast as those of a mapped array.
        self._bytes, self._starts = text.data, offsets.data

    @classmethod
    def of(cls, strings: Sequence[str]) -> "Texts":
        encoded = [s.encode() for s in strings]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(e) for e in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def raw(self, row: int) -> bytes:
        return bytes(self._bytes[self._starts[row] : self._starts[row + 1]])

    def __getitem__(self, row: int) -> str:
        return str(self._bytes[self._starts[row] : self._starts[row + 1]], "utf-8")

    @cached_property
    def quotable(self) -> bool:
        """Whether all of them stand between the quotes of JSON as they are. Reads all of them."""
        escaped = (self.text < ord(" ")) | (self.text == ord('"')) | (self.text == ord("\\"))
        return not escaped.any()

    def quoted(self, rows: npt.ArrayLike) -> list[bytes]:
        """The bytes of the rows (n,), in half the time of `slices`, where all are `quotable`: none
        ends with a zero, which is what the shorter ones are filled up with."""
        at = np.asarray(rows, np.int64)
        starts = self.offsets[at]
        lengths = self.offsets[at + 1] - starts
        columns = np.arange(lengths.max(initial=1))
        text = self.text.take(starts[:, None] + columns, mode="clip")
        text[columns >= lengths[:, None]] = 0
        found: list[bytes] = text.view(f"S{len(columns)}").ravel().tolist()
        return found

    def slices(self, rows: npt.ArrayLike) -> list[memoryview]:
        """The bytes of the rows (n,), where they lie."""
        text, at = self._bytes, np.asarray(rows, np.int64)
        starts, ends = self.offsets[at].tolist(), self.offsets[at + 1].tolist()
        return [text[s:e] for s, e in zip(starts, ends, strict=True)]

    def of_rows(self, rows: npt.ArrayLike) -> list[str]:
        """Those of the rows (n,), twice as fast as one by one."""
        return [str(text, "utf-8") for text in self.slices(rows)]


class Ids:
    """Frozen map between external ids (strings) and rows 0 .. n - 1. Unknown ids are row -1."""

    def __init__(self, texts: Texts, hashes: U64, rows: I64) -> None:
        """hashes (n,) uint64 ascending; rows (n,) int64, the row that each hash belongs to."""
        self.texts, self.hashes, self.rows = texts, hashes, rows
        self._hashes, self._rows = hashes.data, rows.data

    @classmethod
    def of(cls, ids: Sequence[str]) -> "Ids":
        """Raises DataError when an id is empty or stands twice."""
        if len(set(ids)) != len(ids):
            twice, times = Counter(ids).most_common(1)[0]
            raise DataError(f"id '{twice}' stands {times} times; ids must be unique")
        if "" in ids:
            raise DataError("an id is empty; every row needs one")
        hashes = np.array([_hash(i.encode()) for i in ids], np.uint64)
        rows = np.argsort(hashes, kind="stable").astype(np.int64)
        return cls(Texts.of(ids), hashes[rows], rows)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> str:
        return self.texts[row]

    def of_rows(self, rows: npt.ArrayLike) -> list[str]:
        """The ids of the rows (n,)."""
        return self.texts.of_rows(rows)

    def row(self, external: str) -> int:
        """The row of an id, -1 when it is not here."""
        wanted = external.encode(errors="surrogatepass")
        digest = _hash(wanted)
        at = bisect_left(self._hashes, digest)
        while at < len(self._hashes) and self._hashes[at] == digest:
            row = int(self._rows[at])
            if self.texts.raw(row) == wanted:
                return row
            at += 1
        return UNKNOWN


def _hash(encoded: bytes) -> int:
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")
