"""A bundle loaded in memory, frozen: its arrays, its index, its towers.

Loading is also the last gate: every page is touched once, and the golden requests that the
publisher recorded are answered again. A bundle that fails is refused before anyone is served.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.arrays import F32, I32, U8
from contract.bundle import Bundle, open_bundle
from contract.checked import Checked
from contract.errors import BundleError
from contract.features import Block, Category, Encoded, Multi
from contract.index import Index, load_backend, open_index
from service.selection import Selector
from service.towers import ItemTower, UserTower

PAGE = 4096
PROFILES = 16
SAME_VECTOR = 1e-5
GOLDEN_ITEMS = 16
GOLDEN_OVERLAP = 0.9
GOLDEN_DIFFERENCE = 1e-3


@dataclass(frozen=True, eq=False)
class Snapshot:
    bundle: Bundle
    index: Index
    user_tower: UserTower
    item_tower: ItemTower
    popular: I32
    """All rows, the most popular first."""
    reads_profile: bool
    """Whether the user vectors depend on the profile: those of a model of histories do not."""

    @property
    def version(self) -> str:
        return self.bundle.version

    @property
    def items(self) -> int:
        return self.bundle.manifest.dims.items

    def history_length(self) -> int:
        return self.bundle.manifest.features.history_length

    @cached_property
    def category_block(self) -> Block | None:
        """The code columns of the items' category: of their first category feature, else of their
        first multi feature."""
        fields = self.bundle.manifest.features.items
        for kind in (Category, Multi):
            for field in fields.fields:
                if isinstance(field, kind):
                    return fields.block(field.name)
        return None

    def categories_in(self, codes: I32) -> I32:
        """Of encoded items (n, C), the codes of their category; (n, 0) where items have none."""
        block = self.category_block
        return codes[:, block.start : block.start + block.width] if block else codes[:, :0]

    @cached_property
    def categories(self) -> I32:
        """Of the bundle's own items."""
        return self.categories_in(self.bundle.items.codes)

    @cached_property
    def segment_column(self) -> int | None:
        """The code column of a user's segment, by which popularity is told apart."""
        manifest = self.bundle.manifest
        return manifest.popularity.column(manifest.features.users)

    @cached_property
    def interactions(self) -> float:
        """Of all items together; at least 1, so that shares can be taken."""
        return max(float(self.bundle.popularity.sum()), 1.0)

    @cached_property
    def selector(self) -> Selector:
        return Selector(self.bundle.postings, self.bundle.item_vectors)

    def embed_user(self, user: int, profile: Encoded, history: F32, kinds: U8) -> F32:
        """User row (-1: unknown), encoded profile of one user, the last at most L of their history
        (n, H), oldest first, and which history each belongs to (n,) -> the user vectors (K, D). For
        one thread at a time."""
        self.user_tower.places([len(history)])[0][:] = history
        self.user_tower.tell_apart([kinds])
        vectors: F32 = self.embed_users([user], [profile])[0]
        return vectors

    def embed_known(self, user: int) -> F32:
        """The user vectors (K, D) of a user of the bundle, out of nothing but the bundle."""
        bundle = self.bundle
        rows, kinds = bundle.history(user)
        recent, its = slice(-self.history_length(), None), slice(user, user + 1)
        profile = Encoded(bundle.users.codes[its], bundle.users.numbers[its])
        return self.embed_user(user, profile, bundle.history_vectors[rows[recent]], kinds[recent])

    def embed_users(self, users: Sequence[int], profiles: Sequence[Encoded]) -> F32:
        """The same of B users, whose histories are in the places of the user tower -> (B, K, D)."""
        identity = self.bundle.user_identity[[user + 1 for user in users]]
        return self.user_tower.few(identity, profiles)


def load_snapshot(path: Path, checked: Checked | None = None, threads: int = 1) -> Snapshot:
    """Open, check, prefault and rehearse the bundle in `path`. Raises BundleError."""
    bundle = open_bundle(path, checked, threads)
    manifest = bundle.manifest
    filename = load_backend(manifest.index.backend).filename
    if filename and filename not in manifest.files:
        raise BundleError(
            f"{path}: the manifest lists no {filename}, the index of backend "
            f"{manifest.index.backend}; publish the run again"
        )
    index = open_index(manifest.index, path, bundle.item_vectors)
    user_tower = UserTower(bundle)
    snapshot = Snapshot(
        bundle=bundle,
        index=index,
        user_tower=user_tower,
        item_tower=ItemTower(bundle),
        popular=np.argsort(-bundle.popularity, kind="stable").astype(np.int32),
        reads_profile=_reads_profile(bundle, user_tower),
    )
    _prefault(bundle, path / filename if filename else None)
    _rehearse(snapshot)
    _rehearse_items(snapshot)
    return snapshot


def _prefault(bundle: Bundle, index: Path | None) -> None:
    """Read and map every page now, so that no request pays for it."""
    for name in (name for name, entry in bundle.manifest.files.items() if entry.size):
        # In order and ahead of the pages that are asked for below, from a disk that is slow.
        with (
            (bundle.path / name).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
        ):
            pages.madvise(mmap.MADV_WILLNEED)
    if index:
        np.memmap(index, np.uint8, "r")[::PAGE].sum()
    for array in bundle.arrays.values():
        flat: npt.NDArray[Any] = array.reshape(-1).view(np.uint8)
        flat[::PAGE].sum()
    _ = bundle.item_ids.texts.quotable


def _reads_profile(bundle: Bundle, tower: UserTower) -> bool:
    """Whether users of whom nothing but the profile is known get different vectors."""
    users = bundle.manifest.dims.users
    rows = np.linspace(0, users - 1, min(PROFILES, users), dtype=np.int64)
    nothing = bundle.manifest.features.users.encode([{}])
    profiles = Encoded(
        np.concatenate([nothing.codes, bundle.users.codes[rows]]),
        np.concatenate([nothing.numbers, bundle.users.numbers[rows]]),
    )
    count, length = 1 + len(rows), bundle.manifest.features.history_length
    history = np.zeros((count, length, bundle.manifest.dims.history), np.float32)
    mask = np.zeros((count, length), np.float32)
    kinds = np.zeros((count, length), np.int32)
    vectors = tower(bundle.user_identity[np.zeros(count, np.int64)], profiles, history, mask, kinds)
    return bool(np.abs(vectors - vectors[0]).max() > SAME_VECTOR)


def _rehearse(snapshot: Snapshot) -> None:
    """Replay the golden requests. Raises BundleError when the answers are not the publisher's."""
    bundle = snapshot.bundle
    for request in bundle.golden:
        user = bundle.user_ids.row(request.user_id)
        vectors = snapshot.embed_known(user)
        found, scores = snapshot.index.search(vectors, len(request.rows[0]))
        wanted = np.array(request.rows)
        overlap = np.mean([np.isin(f, w).mean() for f, w in zip(found, wanted, strict=True)])
        difference = float(np.abs(scores[:, 0] - np.array(request.scores, np.float32)[:, 0]).max())
        if not (overlap >= GOLDEN_OVERLAP and difference <= GOLDEN_DIFFERENCE):
            raise BundleError(
                f"{bundle.path}: golden request of user '{request.user_id}': "
                f"{overlap:.2f} of the expected items (at least {GOLDEN_OVERLAP}), best score off "
                f"by {difference:.1e} (at most {GOLDEN_DIFFERENCE:g}); publish the run again"
            )


def _rehearse_items(snapshot: Snapshot) -> None:
    """Embed some items again. Raises BundleError when their vectors are not the bundle's."""
    bundle, items = snapshot.bundle, snapshot.items
    rows = np.linspace(0, items - 1, min(GOLDEN_ITEMS, items), dtype=np.int64)
    encoded = Encoded(bundle.items.codes[rows], bundle.items.numbers[rows])
    vectors, history = snapshot.item_tower(bundle.item_identity[rows + 1], encoded)
    for found, wanted in (
        (vectors, bundle.item_vectors[rows]),
        (history, bundle.history_vectors[rows]),
    ):
        difference = float(np.abs(found - wanted).max())
        if not difference <= GOLDEN_DIFFERENCE:
            raise BundleError(
                f"{bundle.path}: the item tower is off by {difference:.1e} from the bundle's "
                f"vectors (at most {GOLDEN_DIFFERENCE:g}); publish the run again"
            )
