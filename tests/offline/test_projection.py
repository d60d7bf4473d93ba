import sys

import numpy as np
import pytest

from offline.projection import load_projection, pca


def test_pca_keeps_the_distances_of_points_on_a_plane() -> None:
    rng = np.random.default_rng(0)
    plane, axes = rng.normal(size=(50, 2)), np.linalg.qr(rng.normal(size=(7, 2)))[0]
    vectors = (plane @ axes.T + rng.normal(size=7)).astype(np.float32)

    found = pca(vectors)

    np.testing.assert_allclose(
        np.linalg.norm(found.points[:, None] - found.points, axis=2),
        np.linalg.norm(plane[:, None] - plane, axis=2),
        atol=1e-5,
    )
    assert found.note == "The two principal axes hold 100% of the variance."


def test_the_first_axis_of_pca_is_the_longest() -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    vectors *= np.array([1, 9, 1, 3, 1], np.float32)

    points = pca(vectors).points

    assert abs(np.corrcoef(points[:, 0], vectors[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(points[:, 1], vectors[:, 3])[0, 1]) > 0.95


def test_vectors_that_are_all_one_are_one_point() -> None:
    assert not pca(np.ones((4, 3), np.float32)).points.any()


@pytest.mark.parametrize(("name", "library"), [("tsne", "sklearn"), ("umap", "umap")])
def test_a_missing_library_is_named_before_any_work(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hidden in (library, "sklearn.manifold"):
        monkeypatch.setitem(sys.modules, hidden, None)

    with pytest.raises(ModuleNotFoundError, match=library):
        load_projection(name)
