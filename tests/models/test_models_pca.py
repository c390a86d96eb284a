"""Principal components against scikit-learn, exact and streamed."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from sklearn.decomposition import PCA as Reference

from m1pipe.errors import InputError
from m1pipe.models.pca import fit_pca


def _rows(n: int, p: int, seed: int = 0) -> np.ndarray:
    """Ten strong factors in noise, columns of unlike scale, a mean far from zero."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 10)) * np.linspace(5, 1, 10)
    noise = rng.normal(size=(n, p))
    return (factors @ rng.normal(size=(10, p)) + noise + 7 * np.arange(p) / p).astype(np.float32)


def _blocks(X: np.ndarray, size: int = 37) -> Callable[[], Iterator[np.ndarray]]:
    def again() -> Iterator[np.ndarray]:
        for start in range(0, len(X), size):
            yield X[start : start + size]

    return again


@pytest.mark.parametrize("shape", [(300, 60), (50, 200), (80, 80)], ids=str)
def test_exact_equals_scikit_learn(shape: tuple[int, int]) -> None:
    X = _rows(*shape)
    found = fit_pca(_blocks(X), 8)
    reference = Reference(8, svd_solver="full").fit(X.astype(np.float64))
    n = len(X)
    np.testing.assert_allclose(
        found.variances, reference.explained_variance_ * (n - 1) / n, rtol=1e-5
    )
    alignment = np.abs(np.sum(found.components * reference.components_, axis=1))
    np.testing.assert_allclose(alignment, 1, atol=1e-5)
    np.testing.assert_allclose(found.mean, X.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.gene_variances, X.var(0), rtol=1e-4)


@pytest.mark.parametrize("shape", [(400, 150), (120, 500)], ids=str)
def test_krylov_explains_as_much_as_the_exact_solution(shape: tuple[int, int]) -> None:
    X = _rows(*shape)
    exact = fit_pca(_blocks(X), 15)
    krylov = fit_pca(_blocks(X), 15, exact_flop=0)
    assert krylov.variances.sum() == pytest.approx(exact.variances.sum(), rel=1e-3)
    np.testing.assert_allclose(krylov.variances[:10], exact.variances[:10], rtol=1e-4)
    overlap = np.linalg.svd(krylov.components[:10] @ exact.components[:10].T, compute_uv=False)
    assert overlap.min() > 0.9999


@pytest.mark.parametrize("exact_flop", [1e12, 0.0], ids=["exact", "krylov"])
def test_components_are_orthonormal_and_signed_and_repeatable(exact_flop: float) -> None:
    X = _rows(200, 90)
    found = fit_pca(_blocks(X), 12, exact_flop=exact_flop)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(12), atol=1e-5)
    largest = np.abs(found.components).argmax(axis=1)
    assert (found.components[np.arange(12), largest] > 0).all()
    again = fit_pca(_blocks(X), 12, exact_flop=exact_flop)
    assert found.components.tobytes() == again.components.tobytes()
    turned_around = fit_pca(_blocks(X, size=11), 12, exact_flop=exact_flop)
    np.testing.assert_allclose(turned_around.components[:10], found.components[:10], atol=1e-4)


def test_scores_and_reconstruction_have_the_stored_variances() -> None:
    X = _rows(300, 60)
    pca = fit_pca(_blocks(X), 8)
    Z = pca.scores(X)
    np.testing.assert_allclose(Z.var(0), pca.variances, rtol=1e-3)
    residual = X - pca.reconstruct(Z)
    np.testing.assert_allclose(residual.var(0), pca.residual_variances, rtol=1e-3, atol=1e-4)


def test_fewer_components_where_the_rows_span_fewer() -> None:
    X = np.outer(np.arange(6), np.ones(4)).astype(np.float32)
    assert fit_pca(_blocks(X), 3).components.shape == (1, 4)
    assert fit_pca(_blocks(_rows(5, 40)), 32).components.shape == (4, 40)
    assert fit_pca(_blocks(np.ones((6, 4), np.float32)), 3).components.shape == (0, 4)
    assert fit_pca(_blocks(_rows(30, 3)), 8, exact_flop=0).components.shape == (3, 3)


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least one training row"):
        fit_pca(_blocks(np.empty((0, 4), np.float32)), 2)
