"""The linear rivals: ridge for many targets here, logistic for classes and labels beside it.

Inputs come standardised by the caller from training rows (with a floored scale); scores of a PCA
or latents are best left as they are, since the penalty should see their variances.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m1pipe.evaluation.logistic import LogisticFit, fit_logistic
from m1pipe.evaluation.rotation import Rotation, rotate

__all__ = ["LinearFit", "LogisticFit", "fit_logistic", "fit_ridge"]

COARSE_GRID = np.logspace(4, -4, 17)  # times the mean eigenvalue of X'X
FINE_GRID = np.logspace(0.4, -0.4, 9)  # times the best of the coarse ones
_BLOCK_CELLS = 2**21


@dataclass(frozen=True)
class LinearFit:
    """A fitted ridge regression.

    Attributes
    ----------
    basis : ndarray, shape (n_features, rank)
        Orthonormal basis of the training rows' space.
    weights : ndarray, shape (rank, n_targets)
        Coefficients of the scores on that basis: with 159,225 targets the coefficients of the
        genes are made only on request.
    intercept : ndarray, shape (n_targets,)
    alpha : float
        The penalty chosen.
    alphas, losses : ndarray, shape (n_alphas,)
        Penalties tried and their leave-one-out mean squared errors.
    """

    basis: NDArray[np.float64]
    weights: np.ndarray
    intercept: NDArray[np.float64]
    alpha: float
    alphas: NDArray[np.float64]
    losses: NDArray[np.float64]

    @property
    def coef(self) -> NDArray[np.float64]:
        """Coefficients of the features, shape (n_features, n_targets)."""
        found: NDArray[np.float64] = self.basis @ self.weights
        return found

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predicted levels, shape (n_samples, n_targets), in the precision of the targets."""
        scores = np.asarray(X, dtype=np.float64) @ self.basis
        out: np.ndarray = scores.astype(self.weights.dtype) @ self.weights
        out += self.intercept
        return out


def fit_ridge(X: ArrayLike, Y: ArrayLike, *, alphas: ArrayLike | None = None) -> LinearFit:
    """Ridge regression of many targets, its one penalty chosen by exact leave-one-out.

    Parameters
    ----------
    X : array_like, shape (n_samples, n_features)
        Standardised inputs, or scores, of the training rows. They are centred here and the
        intercept is not penalised.
    Y : array_like, shape (n_samples, n_targets)
    alphas : array_like, optional
        Penalties to try. None: half decades around the mean eigenvalue of X'X, then a finer grid
        about the best of them.

    Returns
    -------
    LinearFit
        Minimises sum (Y - X coef - intercept)^2 + alpha * sum coef^2.

    Notes
    -----
    A left-out sample's residual is its residual over 1 - leverage, 0 / 0 in the limit of a small
    penalty when n <= p. Both are computed here as sums of what the penalty keeps, never as a
    difference from 1 or from Y, so that nothing cancels and nothing needs clamping.

    Raises
    ------
    ValueError
        If the row counts differ, there are fewer than three rows, or a penalty is not positive.
    """
    Y = np.asarray(Y)
    if Y.ndim != 2 or len(Y) != np.shape(X)[0] or len(Y) < 3:
        raise ValueError(f"Y: expected three rows or more, as many as X; found {Y.shape}")
    rotation = rotate(X)
    mean = Y.mean(axis=0, dtype=np.float64)
    scores, products = _project(rotation.left, Y, mean)
    grid, losses = _search(rotation, products, alphas)
    losses /= Y.shape[1]
    alpha = float(grid[int(np.argmin(losses))])
    scores *= (rotation.singular / (rotation.singular**2 + alpha))[:, None]
    intercept = mean - (rotation.center @ rotation.basis) @ scores
    return LinearFit(rotation.basis, scores, intercept, alpha, grid, losses)


@dataclass(frozen=True)
class _Products:
    """Inner products over targets of Z = U'Y (rank, t) and of what is outside, E = Y - U Z."""

    zz: NDArray[np.float64]  # Z Z', (rank, rank)
    ez: NDArray[np.float64]  # E Z', (n, rank)
    ee: NDArray[np.float64]  # diagonal of E E', (n,)


def _spans_all(U: np.ndarray) -> bool:
    """Whether U and the constant vector span every vector, so that nothing is outside."""
    found: bool = U.shape[1] >= len(U) - 1
    return found


def _project(U: np.ndarray, Y: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, _Products]:
    """Z = U'(Y - mean) in Y's precision, and the products; one pass over blocks of targets."""
    n, rank = U.shape
    Z = np.empty((rank, Y.shape[1]), dtype=np.result_type(Y.dtype, np.float32))
    products = _Products(np.zeros((rank, rank)), np.zeros((n, rank)), np.zeros(n))
    step = max(1, _BLOCK_CELLS // n)
    for start in range(0, Y.shape[1], step):
        block = Y[:, start : start + step] - mean[start : start + step]
        z = U.T @ block
        Z[:, start : start + step] = z
        products.zz[...] += z @ z.T
        if not _spans_all(U):
            outside = block - U @ z
            products.ez[...] += outside @ z.T
            products.ee[...] += np.einsum("ij,ij->i", outside, outside)
    return Z, products


def _leave_one_out(
    rotation: Rotation, products: _Products, alphas: np.ndarray
) -> NDArray[np.float64]:
    """Sum over targets, mean over samples, of the squared leave-one-out residuals."""
    U = rotation.left
    free = np.zeros(len(U))
    if not _spans_all(U):
        free = np.maximum(1 - 1 / len(U) - np.einsum("ij,ij->i", U, U), 0)
    losses = []
    for alpha in alphas:
        kept = alpha / (rotation.singular**2 + alpha)
        K = U * kept
        squared = np.einsum("ij,ij->i", K @ products.zz + 2 * products.ez, K) + products.ee
        one_minus_leverage = np.einsum("ij,ij->i", K, U) + free
        losses.append(np.mean(squared / one_minus_leverage**2))
    return np.array(losses)


def _search(
    rotation: Rotation, products: _Products, alphas: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Penalties tried and their leave-one-out losses: those given, or a grid and a finer one."""
    if alphas is not None:
        grid = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
        if not (grid > 0).all():
            raise ValueError("alphas: expected positive penalties")
        return grid, _leave_one_out(rotation, products, grid)
    mean = float(np.mean(rotation.singular**2)) if len(rotation.singular) else 1.0
    coarse = mean * COARSE_GRID
    first = _leave_one_out(rotation, products, coarse)
    fine = coarse[int(np.argmin(first))] * FINE_GRID
    second = _leave_one_out(rotation, products, fine)
    return np.concatenate([coarse, fine]), np.concatenate([first, second])
