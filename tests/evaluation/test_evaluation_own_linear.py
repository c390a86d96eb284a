import numpy as np
import pytest

from m1pipe.data.own_gene import OwnGenes
from m1pipe.evaluation import own_linear
from m1pipe.evaluation.linear import fit_ridge
from m1pipe.evaluation.own_linear import predict_own_gene


def make(n: int, p: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, OwnGenes]:
    """Standardised genes, three targets of which the last has no gene, and their own genes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    Y = X[:, :3] + 0.5 * rng.normal(size=(n, 3)) + 4
    return X, Y, OwnGenes(X[:, :2].astype(np.float32), np.array([0, 1, -1]))


@pytest.fixture(params=[(40, 6), (20, 50)], ids=["n > p", "n < p"])
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    found: tuple[int, int] = request.param
    return found


def joint(
    X: np.ndarray, own: np.ndarray, y: np.ndarray, alpha: float, penalty: float
) -> np.ndarray:
    """Coefficients of both parts and the intercept by the normal equations, brute force."""
    scaled = (own - own.mean()) / own.std()
    A = np.column_stack([X - X.mean(axis=0), scaled])
    D = np.diag([alpha] * X.shape[1] + [penalty * len(X)])
    w = np.linalg.solve(A.T @ A + D, A.T @ (y - y.mean()))
    return np.append(w, y.mean())


def test_the_joint_fit_solves_the_normal_equations(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y, own = make(*shape)
    new, _, new_own = make(7, shape[1], seed=1)
    monkeypatch.setattr(own_linear, "PENALTIES", np.array([0.3]))
    found = predict_own_gene(Y, own, new_own, X=X, X_test=new)
    ridge = fit_ridge(X, Y)
    np.testing.assert_allclose(found[:, 2], ridge.predict(new)[:, 2])
    for j in range(2):
        levels = own.values[:, j].astype(float)
        w = joint(X, levels, Y[:, j], ridge.alpha, 0.3)
        scaled = (new_own.values[:, j] - levels.mean()) / levels.std()
        expected = np.column_stack([new - X.mean(axis=0), scaled]) @ w[:-1] + w[-1]
        np.testing.assert_allclose(found[:, j], expected, rtol=1e-6)


def test_the_penalty_is_that_of_a_brute_force_leave_one_out(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y, own = make(*shape, seed=3)
    alpha = fit_ridge(X, Y).alpha
    grid = np.array([0.0, 0.3, 3.0, np.inf])
    monkeypatch.setattr(own_linear, "PENALTIES", grid)
    scaled = (own.values - own.values.mean(axis=0)) / own.values.std(axis=0)
    losses = []
    for penalty in grid:
        total = 0.0
        for i in range(len(X)):
            rest = np.arange(len(X)) != i
            for j in range(2):
                A = np.column_stack([X, scaled[:, j]])
                D = np.diag([alpha] * X.shape[1] + [penalty * len(X)])
                if np.isinf(penalty):
                    A, D = X, alpha * np.eye(X.shape[1])
                center, middle = A[rest].mean(axis=0), Y[rest, j].mean()
                left = A[rest] - center
                w = np.linalg.solve(left.T @ left + D, left.T @ (Y[rest, j] - middle))
                total += (Y[i, j] - middle - (A[i] - center) @ w) ** 2
        losses.append(total)
    smoother = own_linear._Smoother(*_parts(X, alpha))
    train, _ = own_linear._standardised(own.values, own.values)
    mine = smoother.residual(train)
    found = own_linear._penalty_losses(Y, own, smoother, train, mine)
    np.testing.assert_allclose(found, losses, rtol=1e-5)


def _parts(X: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, bool]:
    rotation = own_linear.rotate(X)
    kept = alpha / (rotation.singular**2 + alpha)
    return rotation.left, kept, rotation.left.shape[1] >= len(X) - 1


def test_alone_it_is_a_regression_on_one_gene_and_missing_genes_get_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, Y, own = make(30, 4)
    _, _, new = make(5, 4, seed=1)
    monkeypatch.setattr(own_linear, "PENALTIES", np.array([0.0]))
    found = predict_own_gene(Y, own, new, X_test=np.zeros((5, 0)))
    for j in range(2):
        line = np.polyfit(own.values[:, j].astype(float), Y[:, j], 1)
        np.testing.assert_allclose(found[:, j], np.polyval(line, new.values[:, j]), rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], Y[:, 2].mean())


def test_a_gene_that_is_constant_in_training_moves_nothing() -> None:
    _, Y, own = make(30, 4)
    flat = OwnGenes(np.where([True, False], 2.5, own.values).astype(np.float32), own.column)
    _, _, new = make(5, 4, seed=1)
    found = predict_own_gene(Y, flat, new, X_test=np.zeros((5, 0)))
    np.testing.assert_allclose(found[:, 0], Y[:, 0].mean())
    assert np.ptp(found[:, 1]) > 0
