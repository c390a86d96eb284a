import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import QuantileTransformer

from m1pipe.data.normal_scores import MOST_KNOTS, fit_levels, from_places, from_scores, to_scores
from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.errors import InputError


@pytest.fixture
def X() -> np.ndarray:
    """A skewed gene, one with 70 % zeros, one constant, one with few levels."""
    rng = np.random.default_rng(0)
    skewed = rng.gamma(0.7, 2.0, 400)
    sparse = np.where(rng.random(400) < 0.7, 0, rng.lognormal(1, 0.5, 400))
    few = rng.integers(0, 4, 400)
    return np.column_stack([skewed, sparse, np.full(400, 3.0), few]).astype(np.float32)


def test_scores_are_those_of_scikit_learn_where_levels_are_apart(X: np.ndarray) -> None:
    scores = to_scores(X[:, :1], fit_levels(X[:, :1]))[:, 0]
    by_rank = stats.norm.ppf((stats.rankdata(X[:, 0]) - 0.5) / 400)
    np.testing.assert_allclose(scores, by_rank / by_rank.std(), atol=1e-4)
    oracle = QuantileTransformer(n_quantiles=400, output_distribution="normal")
    expected = oracle.fit_transform(X[:, :1].astype(np.float64))[:, 0]
    inner = np.abs(by_rank) < 2
    np.testing.assert_allclose(scores[inner], expected[inner], atol=0.03)


def test_scores_are_standardised_and_lead_back(X: np.ndarray) -> None:
    levels = fit_levels(X)
    scores = to_scores(X, levels)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scores.std(axis=0), [1, 1, 0, 1], atol=1e-4)
    np.testing.assert_allclose(from_scores(scores, levels), X, rtol=1e-4, atol=1e-4)
    beyond = np.array([[50.0, 90, 7, 9], [-2, -1, -4, -1]], dtype=np.float32)
    np.testing.assert_allclose(from_scores(to_scores(beyond, levels), levels), beyond, rtol=1e-4)
    assert np.isnan(to_scores(np.full((1, 4), np.nan), levels)).all()


def test_normal_draws_get_the_training_distribution(X: np.ndarray) -> None:
    """Zeros in their share, which the inverse of the scores would not give."""
    Z = np.random.default_rng(1).standard_normal((20_000, 4)).astype(np.float32)
    drawn = from_places(Z, fit_levels(X))
    assert (drawn[:, 1] == 0).mean() == pytest.approx((X[:, 1] == 0).mean(), abs=0.01)
    assert (drawn[:, 2] == 3).all()
    for j in (0, 1, 3):
        assert stats.ks_2samp(np.round(drawn[:, j], 3), np.round(X[:, j], 3)).statistic < 0.05
    assert drawn[:, 1].min() == 0


def test_many_rows_are_thinned_to_knots() -> None:
    X = np.random.default_rng(2).exponential(size=(6000, 3)).astype(np.float32)
    transform = fit_gene_transform("normal_score", np.array_split(X, 7))
    assert transform.levels is not None
    assert transform.levels.shape == (MOST_KNOTS, 3)
    for q in (0.1, 0.5, 0.9):
        place = int(q * MOST_KNOTS)
        np.testing.assert_allclose(
            transform.levels[place], stats.expon.ppf((place + 0.5) / MOST_KNOTS), rtol=0.15
        )
    again = fit_gene_transform("normal_score", np.array_split(X, 3))
    np.testing.assert_array_equal(again.levels, transform.levels)


def test_slope_is_that_of_the_transform(X: np.ndarray) -> None:
    transform = fit_gene_transform("normal_score", [X[:, :1]])
    at = np.array([0.5, 1.0, 2.0])
    law = stats.gamma(0.7, scale=2.0)
    expected = law.pdf(at) / stats.norm.pdf(stats.norm.ppf(law.cdf(at)))
    np.testing.assert_allclose(np.exp(transform.log_slope(at[:, None]))[:, 0], expected, rtol=0.4)
    affine = fit_gene_transform("standardize", [X])
    np.testing.assert_allclose(affine.log_slope(X)[0], -np.log(affine.scale))


def test_levels_travel_apart_from_the_dictionary(X: np.ndarray) -> None:
    transform = fit_gene_transform("normal_score", [X])
    again = GeneTransform.from_dict(transform.to_dict(), transform.levels)
    np.testing.assert_array_equal(again.apply(X), transform.apply(X))
    np.testing.assert_array_equal(again.invert_draws(X), transform.invert_draws(X))
    with pytest.raises(InputError, match="expected levels with normal_score"):
        GeneTransform.from_dict(transform.to_dict())
