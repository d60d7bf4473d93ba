"""Item vectors on a plane, for people to look at."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from contract.arrays import F32, F64

SEED = 0


class Map(NamedTuple):
    points: F64  # (N, 2)
    note: str
    """What the two axes are, for a caption."""


Projection = Callable[[F32], Map]


def load_projection(name: str) -> Projection:
    """A function of unit vectors (N, D), N and D >= 2. Raises ModuleNotFoundError where its library
    is not installed, before there is any work to lose."""
    return PROJECTIONS[name]()


def pca(vectors: F32) -> Map:
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    first = axes[:, :-3:-1]
    # An axis has no sign of its own: its largest weight is positive, so that a map is repeatable.
    first = first * np.sign(np.take_along_axis(first, np.abs(first).argmax(axis=0)[None], axis=0))
    kept = variances[-2:].sum() / max(variances.sum(), np.finfo(np.float64).tiny)
    return Map(centred @ first, f"The two principal axes hold {kept:.0%} of the variance.")


def _pca() -> Projection:
    return pca


def _tsne() -> Projection:
    from sklearn.manifold import TSNE

    def project(vectors: F32) -> Map:
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, random_state=SEED).fit_transform(vectors)
        return Map(points, "By t-SNE: neighbours are near each other, far distances mean little.")

    return project


def _umap() -> Projection:
    from umap import UMAP

    def project(vectors: F32) -> Map:
        neighbours = min(15, len(vectors) - 1)
        points = UMAP(neighbours, random_state=SEED, n_jobs=1).fit_transform(vectors)
        return Map(points, "By UMAP: neighbours are near each other, far distances mean little.")

    return project


PROJECTIONS: Mapping[str, Callable[[], Projection]] = {"pca": _pca, "tsne": _tsne, "umap": _umap}
