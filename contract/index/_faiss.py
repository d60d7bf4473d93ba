"""What the FAISS backends share: a file mapped and checked, a filter inside the search, and one
order of the answers.
"""

from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np

from contract.arrays import F32, Bool
from contract.errors import BundleError
from contract.index.base import Answer, require_match
from contract.index.exact import rescore

# The stubs that FAISS ships know neither the parameters of a search nor numpy arrays as bitmaps.
faiss: Any = _faiss

METRIC = faiss.METRIC_INNER_PRODUCT


def write(index: Any, path: Path) -> None:
    faiss.write_index(index, str(path))


def read(path: Path, vectors: F32, kind: type[Any]) -> Any:
    """The index in `path`, mapped. Raises BundleError where it is damaged, of another `kind`, or
    not of a matrix of this shape.
    """
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as exc:  # a damaged length asks for absurd memory
        raise BundleError(
            f"{path}: not a readable FAISS index ({_cause(exc)}); publish the bundle again"
        ) from exc
    if (type(index), index.metric_type) != (kind, METRIC):
        raise BundleError(
            f"{path}: {type(index).__name__} of metric {index.metric_type}, expected "
            f"{kind.__name__} of metric {METRIC}; publish the bundle again"
        )
    require_match(path, "dimensions", index.d, vectors.shape[1])
    require_match(path, "rows", index.ntotal, len(vectors))
    return index


def search(index: Any, queries: F32, k: int, params: Any, allowed: Bool | None) -> Answer:
    """One search with the parameters of this call, not of the index: those of other threads do not
    meet. Descending, equal scores by ascending row, padded.
    """
    if allowed is not None:
        # FAISS keeps bare pointers: both must live until the search has returned.
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        params.sel = selector
    scores, rows = index.search(queries, k, params=params)
    scores[rows < 0] = -np.inf
    order = np.lexsort((rows, -scores), axis=-1)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def search_refined(
    index: Any, vectors: F32, queries: F32, k: int, refine: int, params: Any, allowed: Bool | None
) -> Answer:
    """The answers of an index of lossy codes: `refine` times k of them, scored again with the
    bundle's own vectors.
    """
    candidates, _ = search(index, queries, min(k * refine, len(vectors)), params, allowed)
    return rescore(vectors, queries, k, candidates)


def _cause(exc: Exception) -> str:
    """The cause, without the C++ signature that FAISS puts before it."""
    return str(exc).strip().rpartition("Error: ")[2].replace("\n", " ")
