"""Bundles made out of a bundle: sealed anew, so that only what a test changed is different."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from contract.bundle import ids_arrays, open_bundle
from contract.ids import Ids
from contract.index import load_backend
from contract.manifest import Index, Manifest
from contract.store import LocalStore


def unchanged(directory: Path) -> None:
    pass


def derive(
    store: LocalStore, source: Path, edit: Callable[[Path], None] = unchanged, **update: Any
) -> str:
    """A new version in the store: the files of `source` after `edit` has changed them, and its
    manifest after `update`."""
    original = open_bundle(source).manifest

    def fill(directory: Path, version: str) -> Manifest:
        for name in original.files:
            shutil.copyfile(source / name, directory / name)
        edit(directory)
        return original.model_copy(update={"version": version} | update)

    return store.add(fill).version


def with_backend(store: LocalStore, source: Path, name: str) -> str:
    """The bundle behind another index, built with the defaults of its backend."""
    backend = load_backend(name)
    build, search = backend.Build(), backend.Search()
    vectors = open_bundle(source).item_vectors
    return derive(
        store,
        source,
        lambda directory: backend.build(vectors, directory / (backend.filename or ""), build),
        index=Index(backend=name, build=asdict(build), search=asdict(search)),
    )


def rolled(store: LocalStore, source: Path) -> str:
    """Every item under the id of the one before it: as good a bundle, and other answers."""
    ids = open_bundle(source).item_ids
    names = [ids[row] for row in range(len(ids))]
    arrays = ids_arrays("item_ids", Ids.of(names[1:] + names[:1]))

    def relabel(directory: Path) -> None:
        for name, array in arrays.items():
            np.save(directory / f"{name}.npy", array)

    return derive(store, source, relabel)
