import sys

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from m1pipe.errors import InputError
from m1pipe.plots.embedding import JOINT, METHODS, NEIGHBOUR, embed, fit_diffusion_map

QUICK = [method for method in METHODS if method != "umap"]


def samples(n=60, seed=0):
    """Two groups, six apart in each of 12 values of at least 0."""
    rng = np.random.default_rng(seed)
    X = np.abs(rng.normal(size=(n, 12)) + 6 * (np.arange(n) % 2)[:, None])
    return X.astype(np.float32)


def test_components_are_those_of_the_real_samples():
    real, synthetic = samples(), samples(30, seed=1)
    found = embed(real, synthetic, "pca")
    centred = real - real.mean(axis=0)
    rows = np.linalg.svd(centred, full_matrices=False)[2][:2]
    for places, X in ((found.real, real), (found.synthetic, synthetic)):
        expected = (X - real.mean(axis=0)) @ rows.T
        np.testing.assert_allclose(np.abs(places), np.abs(expected), rtol=1e-3, atol=1e-3)
    share = (centred @ rows[0]).var() / centred.var(axis=0).sum()
    assert found.axes[0] == f"PC 1 ({share:.1%} of the variance)"


@pytest.mark.parametrize("method", QUICK)
def test_groups_stay_apart_and_synthetic_samples_join_their_own(method):
    real, synthetic = samples(), samples(30, seed=1)
    found = embed(real, synthetic, method)
    assert found.real.shape == (60, 2) and found.synthetic.shape == (30, 2)
    centres = np.array([found.real[group::2].mean(axis=0) for group in (0, 1)])
    nearest = np.linalg.norm(found.synthetic[:, None] - centres[None], axis=2).argmin(axis=1)
    assert (nearest == np.arange(30) % 2).mean() > 0.9


@pytest.mark.parametrize("method", QUICK)
def test_synthetic_samples_have_no_part_in_what_is_fitted_to_the_real_ones(method):
    real = samples()
    alone, beside = embed(real, None, method), embed(real, samples(seed=2) + 3, method)
    same = np.allclose(alone.real, beside.real)
    assert beside.fitted_on_real == (method not in JOINT)
    assert same == beside.fitted_on_real
    assert alone.synthetic.shape == (0, 2)


def test_mds_keeps_the_distances_of_what_is_flat():
    flat = np.random.default_rng(3).normal(size=(40, 2))
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))[0][:2]
    found = embed(flat[:30] @ turn, flat[30:] @ turn, "mds")
    both = np.concatenate([found.real, found.synthetic])
    np.testing.assert_allclose(pdist(both), pdist(flat), rtol=1e-3)


def test_the_same_seed_gives_the_same_places():
    real = samples()
    np.testing.assert_array_equal(embed(real, None, "tsne").real, embed(real, None, "tsne").real)


@pytest.mark.slow
def test_umap_places_new_samples_in_a_map_of_the_real_ones():
    pytest.importorskip("umap")
    real, synthetic = samples(100), samples(30, seed=1)
    found = embed(real, synthetic, "umap")
    np.testing.assert_array_equal(found.real, embed(real, None, "umap").real)
    centres = np.array([found.real[group::2].mean(axis=0) for group in (0, 1)])
    nearest = np.linalg.norm(found.synthetic[:, None] - centres[None], axis=2).argmin(axis=1)
    assert (nearest == np.arange(30) % 2).all()


def test_without_umap_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r"pip install 'm1pipe\[umap\]'"):
        embed(samples(), None, "umap")


@pytest.mark.parametrize(
    ("X", "method", "message"),
    [
        (samples() - 20, "nmf", "values of at least 0"),
        (samples(), "isomap", "expected one of pca, mds"),
        (samples(4), "pca", "at least 5"),
        (samples()[:, :1], "pca", "2 values each"),
    ],
)
def test_what_cannot_be_placed_is_refused(X, method, message):
    with pytest.raises(InputError, match=message):
        embed(X, None, method)


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
