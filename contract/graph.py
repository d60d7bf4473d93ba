"""What a tower's ONNX file may hold, looked at before any library is given the file: plain
operators of ONNX itself, with their weights inside.

The file is a protocol buffer (https://protobuf.dev/programming-guides/encoding). It is walked as
one, by the field numbers of onnx.proto, without a copy of what it holds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from contract.errors import BundleError

Message = Literal["model", "graph", "node", "attribute", "tensor", "sparse", "opset"]

INSIDE: dict[Message, dict[int, Message]] = {
    "model": {7: "graph", 8: "opset"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Field number -> what is in it, of the messages that lead to something which is looked at."""
MOST_FIELDS = 1_000_000
MOST_BYTES = 512 * 2**20
"""The large tables are arrays of the bundle; what stays in a tower is its layers."""
DEEPEST = 32
"""Of messages in messages. A tower without loops needs four."""
MOST_KEY = 2**32 - 1
"""Other readers of protocol buffers take the low 32 bits of a larger one, and so another field."""
DOMAINS = (b"", b"ai.onnx")
LOOPS = (b"Loop", b"Scan")
"""Operators that may go on for as long as the file says."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    value: int | memoryview


class _Malformed(Exception):
    """Not a protocol buffer."""


def check_tower(path: Path) -> None:
    """Raises BundleError for a file that is no ONNX model, reaches outside of itself, or has
    operators that are not ONNX's own."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise BundleError(
            f"{path}: {size:,} bytes, expected a tower of at most {MOST_BYTES:,}; publish the run "
            "again"
        )
    try:
        _Walk(path).model(memoryview(path.read_bytes()))
    except _Malformed as error:
        raise BundleError(f"{path}: not an ONNX model: {error}; publish the run again") from error


class _Walk:
    def __init__(self, path: Path) -> None:
        self._path, self._left, self._has_graph = path, MOST_FIELDS, False

    def model(self, content: memoryview) -> None:
        self._message("model", content, 0)
        if not self._has_graph:
            raise _Malformed("it has no graph")

    def _message(self, kind: Message, content: memoryview, depth: int) -> None:
        if depth > DEEPEST:
            raise _Malformed(f"messages in messages, over {DEEPEST} deep")
        for number, value in self._fields(content):
            self._look(kind, number, value)
            inside = INSIDE.get(kind, {}).get(number)
            if inside is None:
                continue
            if isinstance(value, int):
                raise _Malformed(f"field {number} of a {kind} is a number")
            self._has_graph |= inside == "graph"
            self._message(inside, value, depth + 1)

    def _look(self, kind: Message, number: int, value: int | memoryview) -> None:
        match kind, number:
            case ("tensor", 13) | ("tensor", 14) if value != 0:
                self._refuse("has weights outside of the file (external data)")
            case ("model", 20) | ("model", 25):
                self._refuse("has functions or a training graph; expected plain operators")
            case ("opset", 1) | ("node", 7) if _text(value) not in DOMAINS:
                self._refuse(f"uses operators of domain {_shown(value)}; expected ONNX's own")
            case ("node", 4) if _text(value) in LOOPS:
                self._refuse(f"has the operator {_shown(value)}, which may go on for ever")

    def _refuse(self, what: str) -> None:
        raise BundleError(f"{self._path}: the tower {what}; publish the run again")

    def _fields(self, content: memoryview) -> Iterator[_Field]:
        at, end = 0, len(content)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise _Malformed(f"over {MOST_FIELDS:,} fields")
            key, at = _varint(content, at)
            if key > MOST_KEY:
                raise _Malformed(f"a field has the key {key:,}, expected at most {MOST_KEY:,}")
            number, wire = key >> 3, key & 7
            if wire == VARINT:
                value, at = _varint(content, at)
                yield _Field(number, value)
                continue
            if wire == BYTES:
                size, at = _varint(content, at)
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                raise _Malformed(f"wire type {wire}")
            if not number or size > end - at:
                raise _Malformed("it ends within a field")
            yield _Field(number, content[at : at + size])
            at += size


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """The number at this position, and where the next one begins."""
    value = 0
    for position, byte in enumerate(content[at : at + 10]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, at + position + 1
    raise _Malformed("it ends within a number")


def _text(value: int | memoryview) -> bytes:
    return b"" if isinstance(value, int) else bytes(value[:100])


def _shown(value: int | memoryview) -> str:
    return ascii(_text(value).decode("ascii", "replace"))
