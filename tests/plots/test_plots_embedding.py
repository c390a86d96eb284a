import sys

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from m1pipe.errors import InputError
from m1pipe.plots.embedding import JOINT, METHODS, embed

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
