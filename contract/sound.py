"""What the numbers in a bundle's arrays must be, so that no request meets one that is not: offsets
that ascend, rows that exist, codes of the schema, finite vectors, text that is UTF-8.

A wrong type or shape is found when an array is mapped; this looks at what is in it, once, in parts.
"""

import codecs
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.arrays import I64
from contract.errors import BundleError
from contract.features import Fields
from contract.kinds import flags_below
from contract.manifest import Manifest

Array = npt.NDArray[Any]

PART = 1 << 18
"""Numbers looked at together: they stay in the cache of a core."""
OFFSETS = {
    "item_ids_offsets": "item_ids_text",
    "attributes_offsets": "attributes_text",
    "tag_values_offsets": "tag_values_text",
    "user_ids_offsets": "user_ids_text",
    "tagged_offsets": "tagged_rows",
    "user_items_offsets": "user_items_rows",
}
"""Array -> what its offsets lead into."""
IDS = ("item_ids", "tag_values", "user_ids")
TEXTS = (*IDS, "attributes")
FINITE = (
    "item_vectors",
    "history_vectors",
    "item_numbers",
    "item_identity",
    "user_numbers",
    "user_identity",
    "popular_scores",
    "popularity",
)
STATES = 3


def check_arrays(path: Path, manifest: Manifest, arrays: Mapping[str, Array]) -> None:
    """Raises BundleError with the first array that holds what it must not."""
    try:
        _check_numbers(manifest, arrays)
        _check_links(arrays)
    except _Wrong as wrong:
        file = path / f"{wrong.name}.npy"
        raise BundleError(f"{file}: {wrong.what}; publish the run again") from wrong


def _check_numbers(manifest: Manifest, arrays: Mapping[str, Array]) -> None:
    """Each number by itself."""
    for name in FINITE:
        _finite(name, arrays[name])
    _not_negative("popularity", arrays["popularity"])
    for name, below in _limits(manifest).items():
        _within(name, arrays[name], below)
    for side, fields in (("item", manifest.features.items), ("user", manifest.features.users)):
        _codes(f"{side}_codes", arrays[f"{side}_codes"], fields)


def _check_links(arrays: Mapping[str, Array]) -> None:
    """The numbers of an array, and what they lead into."""
    for name, into in OFFSETS.items():
        _offsets(name, arrays[name], into, len(arrays[into]))
    for name in TEXTS:
        _text(name, arrays[f"{name}_text"], arrays[f"{name}_offsets"])
    for name in IDS:
        _ascending(f"{name}_hashes", arrays[f"{name}_hashes"])
        _each_once(f"{name}_rows", arrays[f"{name}_rows"])
    for order in arrays["number_order"]:
        _each_once("number_order", order)
    for name in ("user_items_flags", "user_items_times"):
        _as_long(name, arrays[name], len(arrays["user_items_rows"]))


class _Wrong(Exception):
    def __init__(self, name: str, what: str) -> None:
        super().__init__(name, what)
        self.name, self.what = name, what


def _limits(manifest: Manifest) -> dict[str, int]:
    """What the values of an array are below."""
    items = manifest.dims.items
    return {
        "tagged_rows": items,
        "popular_rows": items,
        "user_items_rows": items,
        "item_ids_rows": items,
        "tag_values_rows": manifest.attributes.tag_values,
        "user_ids_rows": manifest.dims.users,
        "number_order": items,
        "item_states": STATES,
        "user_items_flags": flags_below(manifest.features.histories),
    }


def _parts(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    for begin in range(0, len(flat), PART):
        yield flat[begin : begin + PART]


def _finite(name: str, array: Array) -> None:
    for part in _parts(array):
        if not np.isfinite(part).all():
            raise _Wrong(name, "holds NaN or infinity, expected finite numbers")


def _within(name: str, array: Array, below: int) -> None:
    for part in _parts(array):
        low, high = part.min(), part.max()
        if low < 0 or high >= below:
            raise _Wrong(name, f"holds {low if low < 0 else high}, expected 0 to {below - 1}")


def _not_negative(name: str, array: Array) -> None:
    for part in _parts(array):
        if part.min() < 0:
            raise _Wrong(name, f"holds {part.min()}, expected 0 or more")


def _codes(name: str, codes: Array, fields: Fields) -> None:
    for block in fields.blocks:
        for column in range(block.start, block.start + block.width):
            _within(name, np.ascontiguousarray(codes[:, column]), block.size)


def _offsets(name: str, offsets: I64, into: str, end: int) -> None:
    if offsets[0] != 0 or offsets[-1] != end:
        found = f"{offsets[0]} to {offsets[-1]}"
        raise _Wrong(name, f"goes from {found}, expected 0 to {end}, the length of {into}")
    _ascending(name, offsets)


def _ascending(name: str, array: Array) -> None:
    for begin in range(0, len(array) - 1, PART):
        part = array[begin : begin + PART + 1]
        if (part[1:] < part[:-1]).any():
            raise _Wrong(name, "descends, expected ascending numbers")


def _each_once(name: str, rows: Array) -> None:
    found = np.zeros(len(rows), bool)
    found[rows] = True
    if not found.all():
        missing = int(np.argmin(found))
        raise _Wrong(name, f"lacks row {missing}, expected each row once")


def _as_long(name: str, array: Array, length: int) -> None:
    if len(array) != length:
        raise _Wrong(name, f"has {len(array)} entries, expected {length}, as user_items_rows")


def _text(name: str, text: Array, offsets: I64) -> None:
    """No text begins within a letter, and all of them together are UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    starts = offsets[:-1][offsets[:-1] < len(text)]
    try:
        for part in _parts(text):
            decoder.decode(part.tobytes())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _Wrong(f"{name}_text", f"is not UTF-8 ({error.reason})") from error
    # Of a letter of several bytes, all but the first are 10xxxxxx.
    if (text[starts] & 0xC0 == 0x80).any():
        raise _Wrong(f"{name}_offsets", "leads into the middle of a letter")
