"""From a run to a bundle that a channel points at: export, embed, and all that `build` does."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from torch import nn

from contract.arrays import F32, I64
from contract.attributes import Attributes
from contract.bundle import ids_arrays, texts_arrays
from contract.ids import Ids, Texts
from contract.manifest import FORMAT, Dims, Manifest
from contract.manifest import Index as IndexEntry
from contract.popularity import popular_arrays
from contract.store import Store
from offline import attributes, build
from offline.build import Content, IndexChoice
from offline.embed import ItemVectors, embed_items, known_rows, user_embedder
from offline.export import export_towers
from offline.run import Run


def publish(
    run: Run, store: Store, channel: str, choice: IndexChoice, force: bool = False
) -> Manifest:
    """Add a bundle of the run to the store and let the channel point at it; raises as `build.add`
    does."""
    choice.require_valid()
    return build.add(store, channel, content_of(run, choice.backend), choice, force)


def content_of(run: Run, backend: str) -> Content:
    """What the bundle of a run is made of."""
    dataset, model = run.dataset, run.model
    until = dataset.split().train_end
    item_known = known_rows(dataset.counts(until))
    user_known = known_rows(until - dataset.sequences.offsets[:-1])
    vectors = embed_items(model, dataset, item_known)
    embed = user_embedder(model, dataset, user_known, vectors.history)

    def trained(users: I64) -> F32:
        return embed(users, dataset.sequences.offsets[users + 1])

    def write_towers(directory: Path) -> None:
        export_towers(model, dataset.schema, directory)

    described, postings = attributes.index(run.description.recipe, dataset)
    arrays = _arrays(run, vectors, item_known, user_known) | postings
    return Content(_manifest(run, backend, described), arrays, write_towers, trained)


def _arrays(
    run: Run, vectors: ItemVectors, item_known: I64, user_known: I64
) -> dict[str, npt.NDArray[Any]]:
    dataset, model = run.dataset, run.model
    given = [
        orjson.dumps(_present(row)).decode()
        for part in dataset.attributes.iter_slices()  # as dicts, all of them would fill the memory
        for row in part.to_dicts()
    ]
    return {
        "item_vectors": vectors.items,
        "history_vectors": vectors.history,
        "item_codes": dataset.items.codes,
        "item_numbers": dataset.items.numbers,
        "item_identity": _identity(model.item_identity, item_known),
        **ids_arrays("item_ids", Ids.of(dataset.item_ids)),
        **texts_arrays("attributes", Texts.of(given)),
        "item_states": dataset.states,
        "popularity": dataset.counts(),
        **popular_arrays(
            run.description.recipe.popularity,
            dataset.schema.users,
            dataset.users,
            dataset.sequences[:3],
            len(dataset.item_ids),
        ),
        "user_codes": dataset.users.codes,
        "user_numbers": dataset.users.numbers,
        "user_identity": _identity(model.user_identity, user_known),
        **ids_arrays("user_ids", Ids.of(dataset.user_ids)),
        "user_items_offsets": dataset.touched.offsets,
        "user_items_rows": dataset.touched.items,
        "user_items_flags": dataset.touched.flags,
        "user_items_times": dataset.touched.times,
    }


def _manifest(run: Run, backend: str, described: Attributes) -> Manifest:
    description, dataset, model = run.description, run.dataset, run.model
    return Manifest(
        format=FORMAT,
        version="",
        created_at=datetime.now(UTC).replace(microsecond=0),
        model=description.recipe.model,
        recipe=description.recipe.model_dump(mode="json"),
        dims=Dims(
            items=len(dataset.item_ids),
            users=len(dataset.user_ids),
            dim=model.dim,
            interests=model.interests,
            history=model.history_dim,
            item_identity=model.item_identity.embedding_dim,
            user_identity=model.user_identity.embedding_dim,
        ),
        index=IndexEntry(backend=backend),
        features=dataset.schema,
        attributes=described,
        events=description.recipe.events,
        popularity=description.recipe.popularity,
        files={},
        metrics=description.metrics,
        gate=(),
        seq=dataset.seq,
    )


def _identity(table: nn.Embedding, known: I64) -> F32:
    """The identity matrix of a bundle: row 0 unknown, then one row per entity; an entity that
    training never saw gets the unknown one."""
    weights: F32 = table.weight.detach().numpy()[np.concatenate([[0], known])]
    return weights


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
