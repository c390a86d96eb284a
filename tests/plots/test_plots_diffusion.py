import numpy as np
import pytest
from scipy.stats import spearmanr

from m1pipe.plots.diffusion import NEIGHBOUR, fit_diffusion_map


def points(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(n // 2, 5)), 2 + rng.normal(size=(n - n // 2, 5))])


def walk_by_hand(X):
    """Row-stochastic matrix of the walk, written out with loops."""
    n = len(X)
    d = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in X] for a in X])
    width = np.sort(d, axis=1)[:, NEIGHBOUR - 1]
    k = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            s = width[i] ** 2 + width[j] ** 2
            k[i, j] = np.sqrt(2 * width[i] * width[j] / s) * np.exp(-(d[i, j] ** 2) / (2 * s))
    k1 = k / k.sum(1)[:, None] / k.sum(1)[None]
    return k1 / k1.sum(1)[:, None]


def test_eigenvectors_solve_the_eigen_equation_of_the_walk():
    X = points()
    found = fit_diffusion_map(X, 4)
    P = walk_by_hand(X)
    np.testing.assert_allclose(
        P @ found.eigenvectors, found.eigenvectors * found.eigenvalues, atol=1e-10
    )
    expected = np.sort(np.linalg.eigvals(P).real)[::-1]
    assert expected[0] == pytest.approx(1)
    np.testing.assert_allclose(found.eigenvalues, expected[1:5], atol=1e-10)
    np.testing.assert_allclose(found.coordinates, found.eigenvectors * found.eigenvalues)


def test_a_known_point_is_placed_where_it_stands():
    X = points()
    found = fit_diffusion_map(X)
    np.testing.assert_allclose(found.place(X[[3, 50]]), found.coordinates[[3, 50]], atol=1e-9)
    assert found.place(X[:0]).shape == (0, 2)


def test_the_first_coordinate_follows_a_curve_and_places_new_points_on_it():
    ends = np.array([np.pi, 3 * np.pi]) ** 2
    t = np.sqrt(np.sort(np.random.default_rng(1).uniform(*ends, 1000)))
    spiral = np.column_stack([t * np.cos(t), t * np.sin(t)])
    found = fit_diffusion_map(spiral[::2])
    assert abs(spearmanr(found.coordinates[:, 0], t[::2]).statistic) > 0.99
    placed = found.place(spiral[1::2])[:, 0]
    assert abs(spearmanr(placed, t[1::2]).statistic) > 0.99
    assert abs(np.corrcoef(spiral[:, 0], t)[0, 1]) < 0.5


def test_points_far_away_and_points_alike_get_finite_places():
    X = points()
    assert np.isfinite(fit_diffusion_map(X).place(X + 1e4)).all()
    assert np.isfinite(fit_diffusion_map(np.repeat(X[:5], 20, axis=0)).coordinates).all()


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="more than 3"):
        fit_diffusion_map(points()[:3])
