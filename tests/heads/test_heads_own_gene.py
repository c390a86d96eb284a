import numpy as np
import pytest

from m1pipe.data.targets import OwnGenes
from m1pipe.heads import own_gene
from m1pipe.heads.features import Rotation, rotate
from m1pipe.heads.linear import LinearPart, OwnTerm
from m1pipe.heads.own_gene import fit_own_genes
from m1pipe.heads.ridge import fit_ridge

FOLDS = np.arange(40) % 4


def make(n: int, p: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, OwnGenes]:
    """Genes, three targets of which the last has no gene, and their own genes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    Y = X[:, :3] + 0.5 * rng.normal(size=(n, 3)) + 4
    return X, Y, OwnGenes((3 * X[:, :2] + 1).astype(np.float32), np.array([0, 1, -1]))


@pytest.fixture(params=[(40, 6), (40, 90)], ids=["n > p", "n < p"])
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    found: tuple[int, int] = request.param
    return found


def predict(linear: LinearPart, X: np.ndarray, values: np.ndarray) -> np.ndarray:
    out = (X @ linear.weight.T.astype(float) + linear.bias).astype(np.float32)
    linear.own.add_to(out, values)
    return out


def joint(
    X: np.ndarray, own: np.ndarray, y: np.ndarray, alpha: float, penalty: float
) -> np.ndarray:
    """Prediction of training rows by the normal equations of both parts, brute force."""
    scaled = (own - own.mean()) / own.std()
    A = np.column_stack([X - X.mean(axis=0), scaled])
    D = np.diag([alpha] * X.shape[1] + [penalty * len(X)])
    w = np.linalg.solve(A.T @ A + D, A.T @ (y - y.mean()))
    found: np.ndarray = A @ w + y.mean()
    return found


def test_the_joint_fit_solves_the_normal_equations(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y, own = make(*shape)
    monkeypatch.setattr(own_gene, "PENALTIES", np.array([0.3]))
    monkeypatch.setattr(own_gene, "RIDGES", np.array([10.0]))
    alpha = fit_ridge(X, Y).alpha
    fit = fit_own_genes(rotate(X), alpha, Y, own, folds=FOLDS)
    assert fit.chosen == {"alpha": 10 * alpha, "own_penalty": 0.3}
    found = predict(fit.whole, X, own.values)
    for j in range(2):
        expected = joint(X, own.values[:, j].astype(float), Y[:, j], 10 * alpha, 0.3)
        np.testing.assert_allclose(found[:, j], expected, rtol=1e-5)
    ridge = fit_ridge(X, Y, alphas=[10 * alpha])
    np.testing.assert_allclose(found[:, 2], ridge.predict(X)[:, 2], rtol=1e-5)


def test_both_penalties_are_those_of_the_lowest_error_on_the_inner_folds(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y, own = make(*shape, seed=3)
    ridges, penalties = np.array([1.0, 30.0, np.inf]), np.array([0.0, 1.0, np.inf])
    alpha = fit_ridge(X, Y).alpha
    errors = np.empty((3, 3))
    for i, ridge in enumerate(ridges):
        for k, penalty in enumerate(penalties):
            monkeypatch.setattr(own_gene, "RIDGES", np.array([ridge]))
            monkeypatch.setattr(own_gene, "PENALTIES", np.array([penalty]))
            fit = fit_own_genes(rotate(X), alpha, Y, own, folds=FOLDS, judged=np.arange(4))
            predicted = np.empty_like(Y)
            for fold, linear in enumerate(fit.inner):
                out = FOLDS == fold
                predicted[out] = predict(linear, X[out], own.values[out])
            errors[i, k] = np.mean((predicted - Y) ** 2)
            assert fit.loss == pytest.approx(errors[i, k], rel=1e-4)
    monkeypatch.setattr(own_gene, "RIDGES", ridges)
    monkeypatch.setattr(own_gene, "PENALTIES", penalties)
    fit = fit_own_genes(rotate(X), alpha, Y, own, folds=FOLDS)
    best = np.unravel_index(errors.argmin(), errors.shape)
    assert fit.chosen == {"alpha": alpha * ridges[best[0]], "own_penalty": penalties[best[1]]}


def test_inner_fits_do_not_look_at_their_fold(shape: tuple[int, int]) -> None:
    X, Y, own = make(*shape)
    fit = fit_own_genes(rotate(X), 3.0, Y, own, folds=FOLDS, judged=np.array([1]))
    spoilt = Y.copy()
    spoilt[FOLDS == 1] = 1e3
    folds = np.where(FOLDS == 1, 1, 0)
    other = fit_own_genes(rotate(X), 3.0, spoilt, own, folds=folds, judged=np.array([1]))
    if (
        other.chosen == fit.chosen
    ):  # the choice may change; what is fitted without the fold does not
        np.testing.assert_allclose(fit.inner[0].weight, other.inner[0].weight, rtol=1e-3)


def test_alone_it_is_a_regression_on_one_gene_and_missing_genes_get_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, Y, own = make(40, 4)
    monkeypatch.setattr(own_gene, "PENALTIES", np.array([0.0]))
    fit = fit_own_genes(Rotation.empty(40, 0), np.inf, Y, own, folds=FOLDS)
    found = predict(fit.whole, np.zeros((40, 0)), own.values)
    for j in range(2):
        line = np.polyfit(own.values[:, j].astype(float), Y[:, j], 1)
        np.testing.assert_allclose(found[:, j], np.polyval(line, own.values[:, j]), rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], Y[:, 2].mean(), rtol=1e-6)
    assert fit.whole.own.slope[:2].all()


def test_a_gene_that_is_constant_in_training_moves_nothing() -> None:
    _, Y, own = make(40, 4)
    flat = OwnGenes(np.where([True, False], 2.5, own.values).astype(np.float32), own.column)
    fit = fit_own_genes(Rotation.empty(40, 0), np.inf, Y, flat, folds=FOLDS)
    found = predict(fit.whole, np.zeros((5, 0)), own.values[:5])
    np.testing.assert_allclose(found[:, 0], Y[:, 0].mean(), rtol=1e-6)
    assert np.ptp(found[:, 1]) > 0


def test_where_isoforms_are_multiples_of_their_genes_the_inputs_are_left_out() -> None:
    """Latents beside a gene that says all cost noise: 0.032 of the mean's error, not 0.010."""
    rng = np.random.default_rng(0)
    genes = rng.normal(size=(120, 30))
    Y = genes[:, np.arange(60) % 30] * rng.uniform(0.5, 2, 60)
    Y += 0.1 * Y.std(axis=0) * rng.normal(size=Y.shape)
    own = OwnGenes(genes.astype(np.float32), np.arange(60) % 30)
    noise = rng.normal(size=(120, 20)) + genes[:, :20]
    alpha = fit_ridge(noise[:100], Y[:100]).alpha
    folds = np.arange(100) % 5
    both = fit_own_genes(rotate(noise[:100]), alpha, Y[:100], own.take(np.arange(100)), folds=folds)
    alone = fit_own_genes(
        Rotation.empty(100, 0), np.inf, Y[:100], own.take(np.arange(100)), folds=folds
    )
    test = slice(100, 120)
    errors = [
        np.mean((predict(fit.whole, X[test], own.values[test]) - Y[test]) ** 2)
        for fit, X in ((both, noise), (alone, np.zeros((120, 0))))
    ]
    assert errors[1] < 0.03 * np.mean((Y[test] - Y[:100].mean(axis=0)) ** 2)
    assert errors[0] <= 1.05 * errors[1]


def test_a_stored_term_adds_the_same() -> None:
    _, Y, own = make(40, 4)
    term = fit_own_genes(Rotation.empty(40, 0), np.inf, Y, own, folds=FOLDS).whole.own
    again = OwnTerm.from_state(term.to_state())
    out, other = np.zeros((2, 40, 3), dtype=np.float32)
    term.add_to(out, own.values)
    again.add_to(other, own.values)
    assert out[:, :2].any()
    np.testing.assert_array_equal(out, other)
