"""From a run to a bundle that a channel points at: export, embed, index, gate, write, point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from torch import nn

from contract import channels
from contract.arrays import F32, I64
from contract.bundle import ARRAYS, GOLDEN, Bundle, ids_arrays, texts_arrays, write_arrays
from contract.errors import RecipeError
from contract.ids import Ids, Texts
from contract.index import Index, load_backend, open_index, params_from
from contract.manifest import FORMAT, Check, Dims, Manifest, read_manifest
from contract.manifest import Index as IndexEntry
from contract.popularity import popular_arrays
from contract.store import Store
from offline import gate, tune
from offline.data.dataset import windows
from offline.embed import embed_items, known_rows, user_embedder
from offline.export import ITEM_INPUTS, USER_INPUTS, Towers, export_towers, run_tower
from offline.run import Run

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


def publish(
    run: Run, store: Store, channel: str, choice: IndexChoice, force: bool = False
) -> Manifest:
    """Add a bundle of the run to the store and let the channel point at it.

    Raises GateError, with nothing written, when the gate refuses it; `force` publishes it all the
    same and says so in the manifest.
    """
    before = store.channel(channel)
    live = read_manifest(store.bundle(before.version)) if before else None
    draft = _Draft(run, choice, force, live)
    manifest = store.add(draft.fill)
    channels.point(store, channel, manifest.version)
    return manifest


class _Draft:
    """Everything of one bundle, on its way into the staging directory."""

    def __init__(self, run: Run, choice: IndexChoice, force: bool, live: Manifest | None) -> None:
        self.run, self.choice, self.force, self.live = run, choice, force, live
        self.dataset, self.model = run.dataset, run.model
        _require_valid(choice)
        split = self.dataset.split()
        self.item_known = known_rows(self.dataset.counts(split.train_end))
        self.user_known = known_rows(split.train_end - self.dataset.sequences.offsets[:-1])
        self.items = embed_items(self.model, self.dataset, self.item_known)
        self.item_identity = _identity(self.model.item_identity, self.item_known)
        self.user_identity = _identity(self.model.user_identity, self.user_known)

    def fill(self, directory: Path, version: str) -> Manifest:
        checks = self._sanity()
        if self.live:
            checks += gate.not_worse(self.run.description.metrics, self.live.metrics)
        self._require(checks)
        export_towers(self.model, self.dataset.schema, directory)
        towers = Towers.open(directory)
        probes, parity = self._parity(towers)
        checks += parity
        self._require(checks)
        queries = probes.reshape(-1, probes.shape[-1])
        entry = self._index(directory, queries)
        index = open_index(entry, directory, self.items.items)
        checks.append(gate.index_recall(index, self.items.items, queries))
        checks.append(gate.coverage(index, self.items.items, queries))
        self._golden(directory, index, probes)
        write_arrays(directory, self._arrays())
        checks.append(self._replay(directory, self._manifest(version, entry, ()), towers))
        checks.append(gate.fits(sum(file.stat().st_size for file in directory.iterdir())))
        self._require(checks)
        return self._manifest(version, entry, tuple(checks))

    def _require(self, checks: Sequence[Check]) -> None:
        """Called after every stage, so that a bad run is refused before the slow ones."""
        if not self.force:
            gate.require(checks)

    def _index(self, directory: Path, queries: F32) -> IndexEntry:
        choice, vectors = self.choice, self.items.items
        if choice.recall is None:
            return tune.build(choice.backend, vectors, choice.build, choice.search, directory)
        goal = tune.goal(vectors, queries, choice.recall, choice.k)
        if choice.backend == AUTO:
            return tune.choose(vectors, directory, goal)
        return tune.tune(choice.backend, vectors, choice.build or {}, directory, goal)

    def _probe_users(self) -> I64:
        users = len(self.dataset.user_ids)
        return np.linspace(0, users - 1, min(PROBES, users), dtype=np.int64)

    def _parity(self, towers: Towers) -> tuple[F32, list[Check]]:
        """User vectors (P, K, D) of a spread of real users out of the exported tower, and what the
        comparison of both towers with torch found."""
        users = self._probe_users()
        ends = self.dataset.sequences.offsets[users + 1]
        found = run_tower(towers.user, self._user_inputs(users, ends))[0]
        embed = user_embedder(self.model, self.dataset, self.user_known, self.items.history)
        rows = np.linspace(0, len(self.item_known) - 1, PROBES, dtype=np.int64)
        items = run_tower(towers.item, self._item_inputs(rows))
        return found, [
            gate.parity("user tower", embed(users, ends), found),
            gate.parity("item tower", self.items.items[rows], items[0]),
            gate.parity("history vectors", self.items.history[rows], items[1]),
        ]

    def _sanity(self) -> list[Check]:
        return [
            gate.finite("item vectors", self.items.items),
            gate.finite("history vectors", self.items.history),
            gate.not_zero("item vectors", self.items.items),
            gate.norms(self.items.items),
            gate.unique("item ids", self.dataset.item_ids),
            gate.unique("user ids", self.dataset.user_ids),
        ]

    def _user_inputs(self, users: I64, ends: I64) -> dict[str, npt.NDArray[Any]]:
        dataset = self.dataset
        rows, mask = windows(dataset.sequences, users, ends, dataset.schema.history_length)
        history = self.items.history[rows] * mask[:, :, None]
        values = (
            self.user_identity[users + 1],
            dataset.users.codes[users],
            dataset.users.numbers[users],
            history.astype(np.float32),
            mask.astype(np.float32),
        )
        return dict(zip(USER_INPUTS, values, strict=True))

    def _item_inputs(self, rows: I64) -> dict[str, npt.NDArray[Any]]:
        items = self.dataset.items
        values = (self.item_identity[rows + 1], items.codes[rows], items.numbers[rows])
        return dict(zip(ITEM_INPUTS, values, strict=True))

    def _golden(self, directory: Path, index: Index, probes: F32) -> None:
        """Requests that the service replays before it serves: the index search of a user's
        vectors."""
        users = self._probe_users()
        golden = []
        for at in np.linspace(0, len(users) - 1, min(GOLDEN_USERS, len(users)), dtype=np.int64):
            rows, scores = index.search(probes[at], min(GOLDEN_K, len(self.items.items)))
            user = self.dataset.user_ids[users[at]]
            golden.append({"user_id": user, "rows": rows.tolist(), "scores": scores.tolist()})
        (directory / GOLDEN).write_bytes(orjson.dumps(golden))

    def _replay(self, directory: Path, manifest: Manifest, towers: Towers) -> Check:
        arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        staged = Bundle(directory, manifest, arrays)
        index = open_index(manifest.index, directory, staged.item_vectors)
        return gate.golden(staged, towers, index)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        dataset = self.dataset
        attributes = [orjson.dumps(_present(row)).decode() for row in dataset.attributes.to_dicts()]
        return {
            "item_vectors": self.items.items,
            "history_vectors": self.items.history,
            "item_codes": dataset.items.codes,
            "item_numbers": dataset.items.numbers,
            "item_identity": self.item_identity,
            **ids_arrays("item_ids", Ids.of(dataset.item_ids)),
            **texts_arrays("attributes", Texts.of(attributes)),
            "popularity": dataset.counts(),
            **popular_arrays(
                self.run.description.recipe.popularity,
                dataset.schema.users,
                dataset.users,
                dataset.sequences,
                len(dataset.item_ids),
            ),
            "user_codes": dataset.users.codes,
            "user_numbers": dataset.users.numbers,
            "user_identity": self.user_identity,
            **ids_arrays("user_ids", Ids.of(dataset.user_ids)),
            "user_items_offsets": dataset.sequences.offsets,
            "user_items_rows": dataset.sequences.items,
            "user_items_times": dataset.sequences.times,
        }

    def _manifest(self, version: str, entry: IndexEntry, checks: tuple[Check, ...]) -> Manifest:
        description = self.run.description
        return Manifest(
            format=FORMAT,
            version=version,
            created_at=datetime.now(UTC).replace(microsecond=0),
            model=description.recipe.model,
            recipe=description.recipe.model_dump(mode="json"),
            dims=Dims(
                items=len(self.dataset.item_ids),
                users=len(self.dataset.user_ids),
                dim=self.model.dim,
                interests=self.model.interests,
                history=self.model.history_dim,
                item_identity=self.item_identity.shape[1],
                user_identity=self.user_identity.shape[1],
            ),
            index=entry,
            features=self.dataset.schema,
            popularity=description.recipe.popularity,
            files={},
            metrics=description.metrics,
            gate=checks,
            forced=self.force and not all(check.passed for check in checks),
            seq=self.dataset.seq,
            parent=self.live.version if self.live else None,
        )


def _require_valid(choice: IndexChoice) -> None:
    """Raises RecipeError for a wrong parameter before anything slow is done."""
    if choice.backend == AUTO:
        if choice.recall is None:
            raise RecipeError("backend auto needs a target recall to choose by")
        return
    backend = load_backend(choice.backend)
    params_from(backend.Build, choice.build or {})
    params_from(backend.Search, choice.search or {})


def _identity(table: nn.Embedding, known: I64) -> F32:
    """The identity matrix of a bundle: row 0 unknown, then one row per entity; an entity that
    training never saw gets the unknown one."""
    weights: F32 = table.weight.detach().numpy()[np.concatenate([[0], known])]
    return weights


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
