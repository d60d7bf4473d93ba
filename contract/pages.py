"""The rows of a SQLite file that SQLite gives up on, page by page.

SQLite stops where one page contradicts another. Here every page that can be read by itself is: of
the file, and of what was committed to its write-ahead log. The format is that of
https://www.sqlite.org/fileformat2.html; names in capitals are those of that page.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

MAGIC = b"SQLite format 3\x00"
LOG_MAGICS = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}
"""How a log begins, and the byte order of its checksums."""
USUAL_SIZE = 4096
"""Of a page, where no header tells: SQLite's default since 2016."""
HEADER, LOG_HEADER, FRAME_HEADER = 100, 32, 24
LEAF = 0x0D
"""The type of a page that holds rows of a table."""
NUMBERS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
"""Bytes of a column by its serial type: those of nothing and of integers."""

Content = bytes | mmap
Value = int | float | str | bytes | None
UNREADABLE = (IndexError, ValueError, struct.error)
"""What reading a damaged page comes to."""


class Row(NamedTuple):
    id: int
    values: tuple[Value, ...]


class Pages:
    """Of a file and of its write-ahead log."""

    def __init__(self, file: Content, log: Content) -> None:
        self._file, self._log = file, log
        self._size = _page_size(file, log)
        self._newer = _committed(log, self._size)
        self._free = self._free_pages()

    def number(self, offset: int) -> int | None:
        """The SQLite header's 32-bit number there; None where the header is damaged."""
        page = self._page(1)
        return _u32(page, offset) if page[: len(MAGIC)] == MAGIC else None

    def rows(self) -> Iterator[Row]:
        """Of all tables, each once or, where a page was left behind, more than once."""
        count = max(len(self._file) // self._size, *self._newer, 0)
        for number in range(1, count + 1):
            if number not in self._free:
                yield from self._rows_of(number)

    def _rows_of(self, number: int) -> list[Row]:
        page, begin = self._page(number), HEADER if number == 1 else 0
        rows = []
        try:
            cells = _u16(page, begin + 3) if page[begin] == LEAF else 0
            pointers = struct.unpack_from(f">{cells}H", page, begin + 8)
        except UNREADABLE:
            return []
        for at, pointer in enumerate(pointers):
            try:
                rows.append((at, self._row(page, pointer)))
            except UNREADABLE:
                continue
        return _in_step(rows)

    def _row(self, page: bytes, pointer: int) -> Row:
        size, at = _varint(page, pointer)
        row, at = _varint(page, at)
        local = self._local(size)
        payload = page[at : at + local]
        if local < size:
            payload += self._overflow(_u32(page, at + local), size - local)
        if len(payload) != size:
            raise ValueError("cut short")
        return Row(row, tuple(_values(payload)))

    def _local(self, size: int) -> int:
        """How much of a payload stands in its cell."""
        usable = self._size
        if size <= usable - 35:
            return size
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        return local if local <= usable - 35 else least

    def _overflow(self, number: int, size: int) -> bytes:
        parts = []
        for _ in range(0, size, self._size - 4):
            page = self._page(number)
            parts.append(page[4:])
            number = _u32(page, 0)
        return b"".join(parts)[:size]

    def _free_pages(self) -> set[int]:
        """Pages that are in use no more, and may hold what was removed."""
        found = set[int]()
        trunk = self.number(32) or 0
        while trunk and trunk not in found:
            found.add(trunk)
            page = self._page(trunk)
            leaves = min(_u32(page, 4), self._size // 4 - 2) if page else 0
            found.update(struct.unpack_from(f">{leaves}I", page, 8))
            trunk = _u32(page, 0) if page else 0
        # A damaged list leads to pages that are in use.
        return found if len(found) == self.number(36) else set()

    def _page(self, number: int) -> bytes:
        """As it was committed last; empty where there is none, or less than one."""
        content: Content = self._file
        at = (number - 1) * self._size
        if number in self._newer:
            content, at = self._log, self._newer[number]
        page = content[at : at + self._size] if number > 0 else b""
        return page if len(page) == self._size else b""


def _page_size(file: Content, log: Content) -> int:
    if file[: len(MAGIC)] == MAGIC:
        found = _u16(file, 16)
        size = 65_536 if found == 1 else found
    else:
        size = _u32(log, 8) if log[:4] in LOG_MAGICS else USUAL_SIZE
    return size if size in (2**power for power in range(9, 17)) else USUAL_SIZE


def _committed(log: Content, size: int) -> dict[int, int]:
    """Page number -> where its last committed content begins in the log.

    A frame's checksum goes on from that of the frame before, which stands in that frame: so one
    that is damaged breaks itself, and not all that follow it, where SQLite stops reading.
    """
    order = LOG_MAGICS.get(log[:4], "<")
    step = FRAME_HEADER + size
    if len(log) < LOG_HEADER + step:
        return {}
    whole = _checksum(log[:24], (0, 0), order) == struct.unpack_from(">2I", log, 24)
    salts = log[16:24] if whole else log[LOG_HEADER + 8 : LOG_HEADER + 16]
    committed, pending = dict[int, int](), dict[int, int]()
    before = struct.unpack_from(">2I", log, 24)
    for at in range(LOG_HEADER, len(log) - step + 1, step):
        number, pages = struct.unpack_from(">2I", log, at)
        stated = struct.unpack_from(">2I", log, at + 16)
        body = at + FRAME_HEADER
        summed = _checksum(log[at : at + 8], before, order)
        summed = _checksum(log[body : body + size], summed, order)
        before = stated
        if log[at + 8 : at + 16] != salts or summed != stated:
            continue
        pending[number] = body
        if pages:
            committed |= pending
            pending = {}
    return committed


def _checksum(content: bytes, seed: tuple[int, ...], order: str) -> tuple[int, int]:
    one, two = seed
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = one + first + two & 0xFFFFFFFF
        two = two + second + one & 0xFFFFFFFF
    return one, two


def _in_step(rows: list[tuple[int, Row]]) -> list[Row]:
    """Of rows whose ids count up, those that do: the others' ids are damaged."""
    if not rows:
        return []
    (first, _), *_ = Counter(row.id - at for at, row in rows).most_common(1)
    return [row for at, row in rows if row.id - at == first]


def _values(payload: bytes) -> Iterator[Value]:
    end, at = _varint(payload, 0)
    types, value = [], end
    while at < end:
        kind, at = _varint(payload, at)
        types.append(kind)
    for kind in types:
        size = NUMBERS.get(kind, 8 if kind == 7 else (kind - 12) // 2)
        part = payload[value : value + size]
        if len(part) != size:
            raise ValueError("cut short")
        yield _value(kind, part)
        value += size


def _value(kind: int, part: bytes) -> Value:
    if kind == 0:
        return None
    if kind in (8, 9):
        return kind - 8
    if kind in NUMBERS:
        return int.from_bytes(part, signed=True)
    if kind == 7:
        number: float = struct.unpack(">d", part)[0]
        return number
    return part.decode() if kind % 2 else part


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    number = 0
    for length in range(8):
        byte = content[at + length]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at + length + 1
    return number << 8 | content[at + 8], at + 9


def _u16(content: Content, at: int) -> int:
    return int(struct.unpack_from(">H", content, at)[0])


def _u32(content: Content, at: int) -> int:
    return int(struct.unpack_from(">I", content, at)[0])
