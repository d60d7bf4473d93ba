"""From what a bundle is made of to a bundle that a channel points at: index, gate, write, point.

What publishing and compaction have in common.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from contract import channels
from contract.arrays import F32, I32, I64
from contract.bundle import ARRAYS, GOLDEN, Bundle, ItemState, write_arrays
from contract.errors import BundleError, GateError, RecipeError, StoreError
from contract.features import Encoded
from contract.index import Index, load_backend, open_index, params_from
from contract.manifest import Check, Manifest, read_manifest
from contract.manifest import Index as IndexEntry
from contract.sound import check_arrays
from contract.store import Store
from offline import gate, reference, tune
from offline.towers import Towers, item_vectors, user_vectors
from offline.truth import truth

PROBES = 1000
GOLDEN_USERS, GOLDEN_K = 16, 20

AUTO = "auto"


@dataclass(frozen=True)
class IndexChoice:
    """The backend of a bundle; "auto" measures those that suit the size and takes the fastest.

    With a `recall`, the search effort is the least that reaches it among the first `k` of real
    users; else it is what `search` says. Parameters left out keep the backend's defaults.
    """

    backend: str = "faiss_hnsw"
    build: Mapping[str, Any] | None = None
    search: Mapping[str, Any] | None = None
    recall: float | None = None
    k: int = gate.RECALL_AT

    def require_valid(self) -> None:
        """Raises RecipeError for a wrong parameter before anything slow is done."""
        if self.backend == AUTO:
            if self.recall is None:
                raise RecipeError("backend auto needs a target recall to choose by")
            return
        backend = load_backend(self.backend)
        params_from(backend.Build, self.build or {})
        params_from(backend.Search, self.search or {})


@dataclass(frozen=True, eq=False)
class Content:
    """What a bundle is made of."""

    manifest: Manifest
    """But for what only the build can say: version, index, parent, gate."""
    arrays: Mapping[str, npt.NDArray[Any]]
    write_towers: Callable[[Path], None]
    """Writes both towers into a directory."""
    trained: Callable[[I64], F32] | None = None
    """The vectors (B, K, D) of users (B,) out of the trained model, where there is one."""


def add(
    store: Store, channel: str, content: Content, choice: IndexChoice, force: bool = False
) -> Manifest:
    """Add a bundle to the store and let the channel point at it.

    Raises GateError, with nothing written, when the gate refuses it; `force` publishes it all the
    same and says so in the manifest, but for what no service would open. Raises StoreError when the
    channel was moved meanwhile.
    """
    choice.require_valid()
    before = store.channel(channel)
    parent = before.version if before else None
    live = read_manifest(store.bundle(parent)) if parent else None
    build = _Build(content, choice, force, live)

    def fill(directory: Path, version: str) -> Manifest:
        manifest = build.fill(directory, version)
        now = store.channel(channel)
        if (now.version if now else None) != parent:
            raise StoreError(
                f"channel '{channel}' was moved from {parent} to {now and now.version} while a "
                "bundle was built for it; nothing was changed, run it again"
            )
        return manifest

    manifest = store.add(fill)
    channels.point(store, channel, manifest.version)
    return manifest


class _Build:
    """A bundle on its way into the staging directory."""

    def __init__(
        self, content: Content, choice: IndexChoice, force: bool, live: Manifest | None
    ) -> None:
        self.content, self.choice, self.force, self.live = content, choice, force, live
        self.vectors: F32 = content.arrays["item_vectors"]

    def fill(self, directory: Path, version: str) -> Manifest:
        parent = self.live.version if self.live else None
        manifest = self.content.manifest.model_copy(update={"version": version, "parent": parent})
        draft = Bundle(directory, manifest, self.content.arrays)
        checks = self._sanity(draft)
        if self.live:
            checks += gate.not_worse(manifest.metrics, self.live.metrics)
        self._require(checks)
        self.content.write_towers(directory)
        towers = Towers.open(directory)
        users = _spread(manifest.dims.users, PROBES)
        probes = user_vectors(towers, draft, users)
        checks += self._parity(draft, towers, users, probes)
        self._require(checks)
        queries = probes.reshape(-1, probes.shape[-1])
        # A user's vectors stand together.
        seen = [draft.seen(user) for user in users for _ in range(manifest.dims.interests)]
        entry = self._index(directory, queries, seen)
        index = open_index(entry, directory, self.vectors)
        wanted = truth(self.vectors, queries, gate.RECALL_AT, seen)
        checks.append(gate.index_recall(index, len(self.vectors), wanted))
        checks.append(gate.coverage(index, self.vectors, probes))
        _write_golden(draft, index, users, probes)
        write_arrays(directory, self.content.arrays)
        measured = reference.measure(draft, users, probes)
        manifest = manifest.model_copy(update={"index": entry, "reference": measured})
        staged = _opened(directory, manifest, checks)
        again = open_index(entry, directory, staged.item_vectors)
        checks.append(gate.golden(staged, towers, again))
        checks.append(gate.fits(sum(file.stat().st_size for file in directory.iterdir())))
        self._require(checks)
        forced = self.force and not all(check.passed for check in checks)
        return manifest.model_copy(update={"gate": tuple(checks), "forced": forced})

    def _require(self, checks: Sequence[Check]) -> None:
        """Called after every stage, so that a bad run is refused before the slow ones."""
        if not self.force:
            gate.require(checks)

    def _sanity(self, draft: Bundle) -> list[Check]:
        # What is never returned may look as it will, but for what would break the index.
        returned = self.vectors[draft.item_states == ItemState.AVAILABLE]
        return [
            gate.finite("item vectors", self.vectors),
            gate.finite("history vectors", draft.history_vectors),
            gate.not_zero("item vectors", returned),
            gate.norms(returned),
            gate.unique("item ids", draft.item_ids),
            gate.unique("user ids", draft.user_ids),
        ]

    def _parity(self, draft: Bundle, towers: Towers, users: I64, probes: F32) -> list[Check]:
        """The towers against the vectors: of users where a trained model gives them, of items
        always."""
        rows = _spread(len(self.vectors), PROBES)
        encoded = Encoded(draft.items.codes[rows], draft.items.numbers[rows])
        items, history = item_vectors(towers, draft.item_identity[rows + 1], encoded)
        trained = self.content.trained
        return [
            *([gate.parity("user tower", trained(users), probes)] if trained else []),
            gate.parity("item tower", self.vectors[rows], items),
            gate.parity("history vectors", draft.history_vectors[rows], history),
        ]

    def _index(self, directory: Path, queries: F32, seen: Sequence[I32]) -> IndexEntry:
        choice = self.choice
        if choice.recall is None:
            return tune.build(choice.backend, self.vectors, choice.build, choice.search, directory)
        goal = tune.goal(self.vectors, queries, choice.recall, choice.k, seen)
        if choice.backend == AUTO:
            return tune.choose(self.vectors, directory, goal)
        return tune.tune(choice.backend, self.vectors, choice.build or {}, directory, goal)


def _write_golden(draft: Bundle, index: Index, users: I64, probes: F32) -> None:
    """Requests that the service replays before it serves: the index search of a user's vectors."""
    golden = []
    for at in _spread(len(users), GOLDEN_USERS):
        rows, scores = index.search(probes[at], min(GOLDEN_K, draft.manifest.dims.items))
        user = draft.user_ids[users[at]]
        golden.append({"user_id": user, "rows": rows.tolist(), "scores": scores.tolist()})
    (draft.path / GOLDEN).write_bytes(orjson.dumps(golden))


def _opened(directory: Path, manifest: Manifest, checks: Sequence[Check]) -> Bundle:
    """Out of its files. Raises GateError for numbers that every reader refuses: it would be no use
    to force them."""
    arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    try:
        check_arrays(directory, manifest, arrays)
    except BundleError as error:
        raise GateError(
            f"no service would open the bundle, forced or not: {error}", tuple(checks)
        ) from error
    return Bundle(directory, manifest, arrays)


def _spread(count: int, most: int) -> I64:
    """At most so many rows, evenly over all of them."""
    return np.linspace(0, count - 1, min(most, count), dtype=np.int64)
