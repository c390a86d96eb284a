import numpy as np
import pytest

from m1pipe.heads.features import Covariance, View, fit_features, views


def rows(n: int, p: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, p)) * np.linspace(0.5, 4, p) + 7).astype(np.float32)


@pytest.mark.parametrize(("n", "p"), [(50, 6), (12, 40)])
@pytest.mark.parametrize("scale", ["each", "one"])
def test_inputs_of_the_training_rows_are_what_the_map_gives(n: int, p: int, scale: str) -> None:
    X = rows(n, p)
    features, inputs, rotation = fit_features(X, scale)  # type: ignore[arg-type]
    np.testing.assert_allclose(features.apply(X), inputs, atol=2e-5)
    assert inputs.shape[1] == features.n_inputs == min(p, n - 1)
    assert rotation is not None
    again = rotation.scores + rotation.shift
    np.testing.assert_allclose(again @ rotation.basis.T if p < n else again, inputs, atol=2e-5)
    assert np.mean(inputs.var(axis=0)) == pytest.approx(1, rel=0.3)


def test_genes_have_scales_of_their_own_and_latents_share_one() -> None:
    X = rows(50, 6)
    each = fit_features(X, "each")[1].std(axis=0)
    one = fit_features(X, "one")[1].std(axis=0)
    np.testing.assert_allclose(each, 1, atol=0.01)
    np.testing.assert_allclose(one / one[0], X.std(axis=0) / X.std(axis=0)[0], rtol=1e-4)


@pytest.mark.parametrize(("n", "p"), [(50, 6), (12, 40)])
@pytest.mark.parametrize("scale", ["each", "one"])
def test_a_constant_feature_is_shut_off(n: int, p: int, scale: str) -> None:
    X = rows(n, p)
    X[:, 2] = 3.0
    features, _, _ = fit_features(X, scale)  # type: ignore[arg-type]
    other = X.copy()
    other[:, 2] = 1e6
    np.testing.assert_array_equal(features.apply(other), features.apply(X))


def test_left_as_they_are() -> None:
    X = rows(20, 3)
    features, inputs, rotation = fit_features(X, "none")
    np.testing.assert_array_equal(inputs, X)
    np.testing.assert_array_equal(features.apply(X), X)
    assert rotation is None


@pytest.mark.parametrize("ratio", [0.0, 0.5, 2.0, np.inf])
def test_a_second_block_counts_by_its_ratio(ratio: float) -> None:
    X = rows(60, 9)
    _, inputs, _ = fit_features(X, "each", view=View(ratio=ratio), n_beside=3)
    first, second = inputs[:, :6].var(axis=0).sum(), inputs[:, 6:].var(axis=0).sum()
    if ratio == 0:
        assert first == pytest.approx(6, rel=0.01) and second == 0
    elif np.isinf(ratio):
        assert first == 0 and second > 0
    else:
        assert second / first == pytest.approx(ratio**2, rel=0.01)


def test_what_is_tried() -> None:
    covariance = Covariance(np.eye(2, 4), np.ones(2), 1.0)
    assert views(0, None) == (View(),)
    assert {view.ratio for view in views(3, None)} >= {0.0, np.inf}
    assert {view.power for view in views(0, covariance)} >= {0.0}


def test_a_prior_stretches_along_its_components() -> None:
    covariance = Covariance(np.eye(1, 4), np.array([9.0]), 1.0)
    X = rows(50, 4)
    plain = fit_features(X, "each", view=View(power=0.0), covariance=covariance)[1]
    stretched = fit_features(X, "each", view=View(power=1.0), covariance=covariance)[1]
    np.testing.assert_allclose(stretched[:, 0], 3 * plain[:, 0], rtol=1e-5)
    np.testing.assert_allclose(stretched[:, 1:], plain[:, 1:], rtol=1e-5, atol=1e-6)
