"""Index backends by name, and their parameters out of a recipe or a manifest.

A new backend: one file beside this one, one line in `BACKENDS`, one in `REQUIRES` where it needs a
library, one row of tolerances in the contract test.
"""

import importlib
import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from contract.arrays import F32
from contract.errors import BackendError, BundleError, ExtraMissing, RecipeError
from contract.index.base import Backend, Hosted, Index
from contract.manifest import Index as IndexEntry

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendName",
    "Hosted",
    "Index",
    "discard_index",
    "hosted",
    "load_backend",
    "open_index",
    "params_from",
]

log = logging.getLogger("tandem.index")

BackendName = Literal[
    "exact", "faiss_flat", "faiss_ivf", "faiss_ivfpq", "faiss_hnsw", "hnswlib", "annoy", "milvus"
]

BACKENDS: dict[BackendName, str] = {
    "exact": "contract.index.exact:ExactBackend",
    "faiss_flat": "contract.index.faiss_flat:FaissFlatBackend",
    "faiss_ivf": "contract.index.faiss_ivf:FaissIvfBackend",
    "faiss_ivfpq": "contract.index.faiss_ivfpq:FaissIvfPqBackend",
    "faiss_hnsw": "contract.index.faiss_hnsw:FaissHnswBackend",
    "hnswlib": "contract.index.hnswlib:HnswlibBackend",
    "annoy": "contract.index.annoy:AnnoyBackend",
    "milvus": "contract.index.milvus:MilvusBackend",
}

# The backends whose index lies on a server, and their file in a bundle: known without the library.
HOSTED: dict[BackendName, str] = {"milvus": "index.milvus"}

# The library that a backend imports, and what pip calls it.
REQUIRES: dict[BackendName, tuple[str, str]] = {
    "faiss_flat": ("faiss", "faiss-cpu"),
    "faiss_ivf": ("faiss", "faiss-cpu"),
    "faiss_ivfpq": ("faiss", "faiss-cpu"),
    "faiss_hnsw": ("faiss", "faiss-cpu"),
    "hnswlib": ("hnswlib", "'tandem-recall[hnswlib]'"),
    "annoy": ("annoy", "'tandem-recall[annoy]'"),
    "milvus": ("pymilvus", "'tandem-recall[milvus]'"),
}

Params = TypeVar("Params")


def load_backend(name: str) -> type[Backend]:
    """Raises BundleError for a name that is not in the table, ExtraMissing where its library is
    not installed.
    """
    if name not in BACKENDS:
        raise BundleError(f"backend {name!r} is unknown; known: {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    try:
        return cast(type[Backend], getattr(importlib.import_module(module), attribute))
    except ModuleNotFoundError as exc:
        library, package = REQUIRES.get(name, (None, None))
        # A library that is installed and broken says so itself.
        if exc.name is None or exc.name != library:
            raise
        raise ExtraMissing(f"backend {name} needs {library}: pip install {package}") from exc


def hosted(directory: Path) -> tuple[type[Hosted], Path] | None:
    """The backend that hosts the index of the bundle in `directory`, and its file there; None where
    the bundle holds its index itself. Raises ExtraMissing.
    """
    for name, filename in HOSTED.items():
        if (path := directory / filename).is_file():
            return cast(type[Hosted], load_backend(name)), path
    return None


def discard_index(directory: Path) -> None:
    """Remove what an index that was built in `directory` keeps elsewhere."""
    if found := hosted(directory):
        backend, path = found
        try:
            backend.drop(path)
        except BackendError as error:
            log.warning("%s: what it names is left behind: %s", path, error)


def open_index(entry: IndexEntry, directory: Path, vectors: F32) -> Index:
    """Open the index of a manifest in the directory of its bundle. Raises BundleError."""
    backend = load_backend(entry.backend)
    try:
        build = params_from(backend.Build, entry.build)
        search = params_from(backend.Search, entry.search)
    except RecipeError as exc:
        raise BundleError(f"{directory}: {exc}; publish the run again") from exc
    return backend.open(directory / (backend.filename or ""), vectors, build, search)


def params_from(cls: type[Params], values: Mapping[str, Any]) -> Params:
    """A backend's `Build` or `Search` out of plain values; what is absent keeps its default.

    Raises RecipeError for a key that it does not have and for a value of another type.
    """
    backend, kind = cls.__module__.rpartition(".")[2], cls.__name__.lower()
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cast(Any, cls))]
    for key, value in values.items():
        if key not in known:
            names = ", ".join(known) or "none"
            raise RecipeError(f"backend {backend} has no {kind} parameter {key!r}; known: {names}")
        if not _fits(value, hints[key]):
            raise RecipeError(
                f"backend {backend}, {kind} parameter {key!r} is {value!r}, "
                f"expected {_spelled(hints[key])}; known: {', '.join(known)}"
            )
    return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    # Not isinstance: True is no number of trees.
    return type(value) is hint


def _spelled(hint: Any) -> str:
    choices = get_args(hint)
    return f"one of {', '.join(map(repr, choices))}" if choices else str(hint.__name__)
