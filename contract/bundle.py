"""The bundle: a directory that is complete or invisible. Normative: docs/bundle-format.md.

`write_bundle` stages the files beside their destination, syncs them, writes the manifest last and
renames the directory. `open_bundle` trusts nothing: names, sizes, checksums, types and shapes are
checked before an array is handed out, and every array is memory-mapped, never copied.
"""

import fcntl
import hashlib
import math
import mmap
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contract import manifest as manifests
from contract.arrays import F32, I32, I64, U8
from contract.attributes import Postings
from contract.checked import Checked
from contract.errors import BundleError
from contract.features import Encoded
from contract.files import STAGING, read_small, sync
from contract.graph import check_tower
from contract.ids import UNKNOWN, Ids, Texts
from contract.index import discard_index
from contract.kinds import HISTORY, SEEN, history_of
from contract.manifest import FileEntry, Manifest, read_manifest
from contract.popularity import DEPTH
from contract.sound import check_arrays

USER_TOWER = "user_tower.onnx"
ITEM_TOWER = "item_tower.onnx"
GOLDEN = "golden.json"
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NPY = b"\x93NUMPY\x01\x00"
"""How a .npy file of version 1.0 begins."""
NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|](?:f[48]|[iu][1248]))', 'fortran_order': False, "
    rb"'shape': \(([\d, ]{1,60})\), \} *\n"
)

Shape = tuple[str | int | None, ...]

ARRAYS: dict[str, tuple[str, Shape]] = {
    "item_vectors": ("float32", ("items", "dim")),
    "history_vectors": ("float32", ("items", "history")),
    "item_codes": ("int32", ("items", "item_codes")),
    "item_numbers": ("float32", ("items", "item_numbers")),
    "item_identity": ("float32", ("items+1", "item_identity")),
    "item_ids_text": ("uint8", (None,)),
    "item_ids_offsets": ("int64", ("items+1",)),
    "item_ids_hashes": ("uint64", ("items",)),
    "item_ids_rows": ("int64", ("items",)),
    "attributes_text": ("uint8", (None,)),
    "attributes_offsets": ("int64", ("items+1",)),
    "item_states": ("uint8", ("items",)),
    "tag_values_text": ("uint8", (None,)),
    "tag_values_offsets": ("int64", ("tag_values+1",)),
    "tag_values_hashes": ("uint64", ("tag_values",)),
    "tag_values_rows": ("int64", ("tag_values",)),
    "tagged_offsets": ("int64", ("tag_values+1",)),
    "tagged_rows": ("int32", (None,)),
    "number_values": ("float64", ("numbers", "items")),
    "number_order": ("int32", ("numbers", "items")),
    "popularity": ("float32", ("items",)),
    "popular_rows": ("int32", ("segments", "popular")),
    "popular_scores": ("float32", ("segments", "popular")),
    "user_codes": ("int32", ("users", "user_codes")),
    "user_numbers": ("float32", ("users", "user_numbers")),
    "user_identity": ("float32", ("users+1", "user_identity")),
    "user_ids_text": ("uint8", (None,)),
    "user_ids_offsets": ("int64", ("users+1",)),
    "user_ids_hashes": ("uint64", ("users",)),
    "user_ids_rows": ("int64", ("users",)),
    "user_items_offsets": ("int64", ("users+1",)),
    "user_items_rows": ("int32", (None,)),
    "user_items_flags": ("uint8", (None,)),
    "user_items_times": ("int64", (None,)),
}
"""Array -> its dtype and shape. A name stands for a size of the manifest, None for any size."""


class Golden(BaseModel):
    """A request with the answer that the publisher got: one index search of the user's vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: str
    rows: tuple[tuple[int, ...], ...]
    """(K, k)"""
    scores: tuple[tuple[float | None, ...], ...]
    """(K, k); null where it was not a number, which no answer is like."""


GOLDENS = TypeAdapter(Annotated[tuple[Golden, ...], Field(min_length=1)])


class ItemState(IntEnum):
    """What stands in `item_states`."""

    AVAILABLE = 0
    UNAVAILABLE = 1
    """Known, and never returned."""
    DELETED = 2
    """There for the histories that hold it alone."""


@dataclass(frozen=True)
class Bundle:
    """A published bundle, opened: every array is a read-only memory map."""

    path: Path
    manifest: Manifest
    arrays: Mapping[str, npt.NDArray[Any]]

    @property
    def version(self) -> str:
        return self.manifest.version

    @cached_property
    def item_ids(self) -> Ids:
        return self._ids("item_ids")

    @cached_property
    def user_ids(self) -> Ids:
        return self._ids("user_ids")

    @cached_property
    def item_vectors(self) -> F32:
        """(N, D), what is searched."""
        return self.arrays["item_vectors"]

    @cached_property
    def history_vectors(self) -> F32:
        """(N, H), an item as input to the user tower."""
        return self.arrays["history_vectors"]

    @cached_property
    def items(self) -> Encoded:
        return Encoded(self.arrays["item_codes"], self.arrays["item_numbers"])

    @cached_property
    def users(self) -> Encoded:
        return Encoded(self.arrays["user_codes"], self.arrays["user_numbers"])

    @cached_property
    def item_identity(self) -> F32:
        """(N + 1, E): row 0 is the unknown item, row r + 1 belongs to row r."""
        return self.arrays["item_identity"]

    @cached_property
    def user_identity(self) -> F32:
        """(U + 1, E): row 0 is the unknown user, row u + 1 belongs to user u."""
        return self.arrays["user_identity"]

    @cached_property
    def popularity(self) -> F32:
        """(N,) interactions of each item that count as history."""
        return self.arrays["popularity"]

    @cached_property
    def item_states(self) -> U8:
        """(N,) the ItemState of each item."""
        return self.arrays["item_states"]

    @cached_property
    def popular_rows(self) -> I32:
        """(S, T) the most popular items: of all users, then of each segment of users."""
        return self.arrays["popular_rows"]

    @cached_property
    def popular_scores(self) -> F32:
        """(S, T) their shares of the interactions."""
        return self.arrays["popular_scores"]

    @cached_property
    def attributes(self) -> Texts:
        """The features of each item as they were given, one JSON object per row."""
        return Texts(self.arrays["attributes_text"], self.arrays["attributes_offsets"])

    def encode_items(self, posts: Sequence[tuple[str, Mapping[str, Any]]]) -> Encoded:
        """Items as they are posted: ids, and features and attributes. An item of the bundle may
        have the other columns that `attributes` has of it: nothing reads them. Raises
        FeatureError."""
        known = self.manifest.item_names
        read = [
            features if features.keys() <= known else self._without_columns(item_id, features)
            for item_id, features in posts
        ]
        return self.manifest.encode_items(read)

    def _without_columns(self, item_id: str, features: Mapping[str, Any]) -> Mapping[str, Any]:
        row = self.item_ids.row(item_id)
        if row == UNKNOWN:
            return features
        columns = orjson.loads(self.attributes.raw(row)).keys() - self.manifest.item_names
        return {name: value for name, value in features.items() if name not in columns}

    @cached_property
    def postings(self) -> Postings:
        """The items by attribute, for filters."""
        return Postings(self.manifest.attributes, self.arrays)

    def user_items(self, user: int) -> tuple[I32, U8]:
        """Rows of everything that user `user` interacted with, oldest first, and the flags of each
        (see contract.kinds)."""
        offsets: I64 = self.arrays["user_items_offsets"]
        its = slice(offsets[user], offsets[user + 1])
        return self.arrays["user_items_rows"][its], self.arrays["user_items_flags"][its]

    def history(self, user: int) -> tuple[I32, U8]:
        """Rows of what counts as the history of user `user`, oldest first, and which history each
        belongs to."""
        rows, flags = self.user_items(user)
        its = flags & HISTORY != 0
        return rows[its], history_of(flags[its])

    def seen(self, user: int) -> I32:
        """Rows of what counts as seen by user `user`, oldest first."""
        rows, flags = self.user_items(user)
        its: I32 = rows[flags & SEEN != 0]
        return its

    @cached_property
    def golden(self) -> tuple[Golden, ...]:
        """What the publisher asked and was answered. Raises BundleError where it is nothing that
        this bundle could be asked."""
        path = self.path / GOLDEN
        try:
            golden = GOLDENS.validate_json(read_small(path))
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "document"
            raise BundleError(f"{path}: {key}: {first['msg']}; publish the run again") from error
        for request in golden:
            self._require_askable(request)
        return golden

    def _require_askable(self, request: Golden) -> None:
        where, dims = f"{self.path / GOLDEN}: user '{request.user_id}'", self.manifest.dims
        if self.user_ids.row(request.user_id) == UNKNOWN:
            raise BundleError(f"{where} is not in the bundle; publish the run again")
        k = len(request.rows[0]) if request.rows else 0
        sizes = {len(answer) for answer in (*request.rows, *request.scores)}
        interests = {len(request.rows), len(request.scores)}
        if interests != {dims.interests} or sizes != {k} or not 0 < k <= dims.items:
            raise BundleError(
                f"{where}: expected rows and scores of {dims.interests} x 1 to {dims.items}; "
                "publish the run again"
            )

    def _ids(self, stem: str) -> Ids:
        parts = {p: self.arrays[f"{stem}_{p}"] for p in ("text", "offsets", "hashes", "rows")}
        return Ids(Texts(parts["text"], parts["offsets"]), parts["hashes"], parts["rows"])


def ids_arrays(stem: str, ids: Ids) -> dict[str, npt.NDArray[Any]]:
    """An id map as the arrays that a bundle stores."""
    return {
        f"{stem}_text": ids.texts.text,
        f"{stem}_offsets": ids.texts.offsets,
        f"{stem}_hashes": ids.hashes,
        f"{stem}_rows": ids.rows,
    }


def texts_arrays(stem: str, texts: Texts) -> dict[str, npt.NDArray[Any]]:
    return {f"{stem}_text": texts.text, f"{stem}_offsets": texts.offsets}


def write_arrays(directory: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write the arrays of a bundle, each as `<name>.npy`, in the table's dtype."""
    assert arrays.keys() == ARRAYS.keys(), arrays.keys() ^ ARRAYS.keys()
    for name, array in arrays.items():
        wanted = np.ascontiguousarray(array, dtype=ARRAYS[name][0])
        np.save(directory / f"{name}.npy", wanted, allow_pickle=False)


def write_bundle(destination: Path, fill: Callable[[Path], Manifest]) -> Manifest:
    """Publish a directory at `destination`, all at once.

    `fill` writes the files of the bundle into the directory it is given and returns the manifest,
    whose `files` are filled in here. Whatever stops the process before the rename leaves nothing
    that a reader could see. Raises BundleError when the destination exists.
    """
    if destination.exists():
        raise BundleError(f"{destination}: exists already; a bundle is never written in place")
    destination.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=STAGING, dir=destination.parent))
    # Tells a directory that is being written from one that a dead publisher has left.
    writing = os.open(staged, os.O_RDONLY)
    fcntl.flock(writing, fcntl.LOCK_EX)
    try:
        manifest = fill(staged)
        files = {path.name: _seal(path) for path in sorted(staged.iterdir())}
        manifest = manifest.model_copy(update={"files": files})
        path = staged / manifests.NAME
        path.write_text(manifest.model_dump_json(indent=2))
        path.chmod(0o444)
        sync(path)
        staged.chmod(0o755)
        sync(staged)
        staged.rename(destination)
        sync(destination.parent)
    except BaseException:
        discard_index(staged)
        shutil.rmtree(staged, ignore_errors=True)
        raise
    finally:
        os.close(writing)
    return manifest


def open_bundle(path: Path, checked: Checked | None = None, threads: int = 1) -> Bundle:
    """Check everything, map everything. Raises BundleError with the first thing that is wrong.

    What `checked` remembers is not read once more: checksums, which take so many threads, and what
    is in the arrays.
    """
    manifest = read_manifest(path)
    if manifest.version != path.name:
        raise BundleError(
            f"{path}: the manifest is of version '{manifest.version}'; a bundle must not be renamed"
        )
    required = {f"{name}.npy" for name in ARRAYS} | {USER_TOWER, ITEM_TOWER, GOLDEN}
    missing = sorted(required - manifest.files.keys())
    if missing:
        raise BundleError(f"{path}: the manifest lists no {missing[0]}; publish the run again")
    files = {name: _found(path, name, entry) for name, entry in manifest.files.items()}
    files[manifests.NAME] = (path / manifests.NAME).lstat()
    with checked.once(path, files) if checked else nullcontext(False) as known:
        if not known:
            _verify(path, manifest.files, threads)
        for name in (USER_TOWER, ITEM_TOWER):
            check_tower(path / name)
        arrays = {name: _map(path / f"{name}.npy", name, manifest) for name in ARRAYS}
        if not known:
            check_arrays(path, manifest, arrays)
    return Bundle(path, manifest, arrays)


def _seal(path: Path) -> FileEntry:
    sync(path)
    path.chmod(0o444)
    return FileEntry(size=path.stat().st_size, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    if not path.stat().st_size:  # which cannot be mapped
        return hashlib.sha256().hexdigest()
    # Mapped, not read: a sixth of the time is the copy.
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
    ):
        return hashlib.sha256(pages).hexdigest()


def _found(directory: Path, name: str, entry: FileEntry) -> os.stat_result:
    if not FILE_NAME.fullmatch(name):
        raise BundleError(f"{directory}: file name {name!r} in the manifest; expected a plain name")
    path = directory / name
    try:
        found = path.lstat()
    except OSError as error:
        raise BundleError(f"{path}: missing; the manifest lists it, publish again") from error
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{path}: not a plain file (a link or a special file); refused")
    if found.st_size != entry.size:
        raise BundleError(
            f"{path}: {found.st_size:,} bytes, the manifest says {entry.size:,}; "
            "the copy was cut short, publish or copy again"
        )
    return found


def _verify(directory: Path, files: Mapping[str, FileEntry], threads: int) -> None:
    # The largest first: no thread is left with one of them at the end.
    names = sorted(files, key=lambda name: -files[name].size)
    with ThreadPoolExecutor(threads) as pool:
        digests = pool.map(lambda name: _sha256(directory / name), names)
        for name, digest in zip(names, digests, strict=True):
            wanted = files[name].sha256
            if digest != wanted:
                raise BundleError(
                    f"{directory / name}: sha256 {digest[:12]}, the manifest says {wanted[:12]}; "
                    "the file is damaged, publish or copy again"
                )


def _map(path: Path, name: str, manifest: Manifest) -> npt.NDArray[Any]:
    found, shape, begin = _header(path)
    dtype, sizes = ARRAYS[name]
    wanted = tuple(_size(part, manifest) for part in sizes)
    fits = len(wanted) == len(shape) and all(
        w is None or w == f for w, f in zip(wanted, shape, strict=True)
    )
    if found != dtype or not fits:
        raise BundleError(
            f"{path}: {found} {shape}, the manifest says {dtype} {wanted}; publish the run again"
        )
    size, expected = path.stat().st_size, begin + math.prod(shape) * found.itemsize
    if size != expected:
        raise BundleError(
            f"{path}: not a .npy array: {size:,} bytes, its header says {expected:,}; publish again"
        )
    array = np.memmap(path, found, "r", begin, shape)
    # A plain view: a memmap object costs a Python-level call on every slice.
    return array.view(np.ndarray)


def _header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type and shape of a .npy array, and where its numbers begin.

    Read strictly, not by numpy, which evaluates headers as Python and takes archives and pickles.
    """
    with path.open("rb") as file:
        head = file.read(len(NPY) + 2)
        size = int.from_bytes(head[len(NPY) :], "little")
        match = NPY_HEADER.fullmatch(file.read(size))
    if not head.startswith(NPY) or not match:
        raise BundleError(f"{path}: not a .npy array as numpy writes it; publish again")
    shape = tuple(int(number) for number in re.findall(rb"\d+", match[2]))
    return np.dtype(match[1].decode()), shape, len(head) + size


def _size(part: str | int | None, manifest: Manifest) -> int | None:
    if not isinstance(part, str):
        return part
    features = manifest.features
    sizes = manifest.dims.model_dump() | {
        "item_codes": features.items.code_width,
        "item_numbers": features.items.number_width,
        "user_codes": features.users.code_width,
        "user_numbers": features.users.number_width,
        "tag_values": manifest.attributes.tag_values,
        "numbers": len(manifest.attributes.numbers),
        "segments": manifest.popularity.segments(features.users),
        "popular": min(DEPTH, manifest.dims.items),
    }
    name, plus, one = part.partition("+")
    size: int = sizes[name]
    return size + (int(one) if plus else 0)
