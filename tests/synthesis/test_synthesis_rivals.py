"""Rival generators keep what they promise to keep."""

from collections.abc import Callable

import anndata
import numpy as np
import pytest
from scipy import stats

from m1pipe.synthesis.rivals import RIVALS, from_normal_scores, gaussian_copula, normal_scores

Made = Callable[..., anndata.AnnData]


@pytest.fixture(scope="module")
def train(profiles: Made) -> np.ndarray:
    X = profiles(200, 40).X.copy()
    X[:, 3] = 2.5
    assert (X == 0).mean() > 0.02
    return X


def test_normal_scores_are_normal_and_invertible(train: np.ndarray) -> None:
    Z = normal_scores(train)
    varies = np.arange(40) != 3
    np.testing.assert_allclose(Z[:, varies].std(axis=0, ddof=1), 1, rtol=1e-4)
    assert (Z[:, 3] == 0).all()
    untied = np.flatnonzero((train > 0).all(axis=0) & varies)[0]
    order = stats.norm.ppf((stats.rankdata(train[:, untied]) - 0.5) / 200)
    assert np.corrcoef(Z[:, untied], order)[0, 1] == pytest.approx(1)
    scale = order.std(ddof=1)
    back = from_normal_scores(scale * Z, train)
    np.testing.assert_allclose(back[:, untied], train[:, untied], atol=2e-3)


@pytest.mark.parametrize("name", list(RIVALS))
def test_every_rival_is_seeded_and_keeps_marginals_and_correlations(
    train: np.ndarray, name: str
) -> None:
    made = RIVALS[name](train, 3000, 1)
    assert made.shape == (3000, 40)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, RIVALS[name](train, 3000, 1))
    assert not np.array_equal(made, RIVALS[name](train, 3000, 2))
    assert made.min() >= 0
    np.testing.assert_allclose(made.mean(axis=0), train.mean(axis=0), atol=0.25)
    varies = np.arange(40) != 3
    np.testing.assert_allclose(made[:, 3], 2.5, atol=1e-5)
    ratio = made[:, varies].std(axis=0) / train[:, varies].std(axis=0)
    assert np.abs(np.log(ratio)).max() < 0.25
    upper = np.triu_indices(39, 1)
    real, own = (np.corrcoef(X[:, varies].T)[upper] for X in (train, made))
    assert np.sqrt(np.mean((real - own) ** 2)) < 0.07


def test_the_copula_has_the_correlations_of_the_normal_scores(train: np.ndarray) -> None:
    Z = normal_scores(train)
    made = normal_scores(gaussian_copula(train, 20_000, 0))
    full = np.flatnonzero((train > 0).all(axis=0) & (np.arange(40) != 3))
    assert full.size > 5
    got, expected = np.corrcoef(made[:, full].T), np.corrcoef(Z[:, full].T)
    np.testing.assert_allclose(got, expected, atol=0.04)
