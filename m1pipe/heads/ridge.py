"""Ridge regression of many targets, its penalty chosen by leaving out samples or groups, exactly.

Inputs come scaled by the caller: genes standardised by training rows (with a floored scale), PCA
scores and latents by one number, since the penalty should see their variances.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m1pipe.heads.features import Rotation, rotate

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
        Penalties tried and their mean squared errors on left-out samples.
    unit_losses : ndarray, shape (n_units,)
        That of every sample, or mean over every group, at the penalty chosen.
    """

    basis: NDArray[np.float64]
    weights: np.ndarray
    intercept: NDArray[np.float64]
    alpha: float
    alphas: NDArray[np.float64]
    losses: NDArray[np.float64]
    unit_losses: NDArray[np.float64]

    @property
    def coef(self) -> NDArray[np.float64]:
        """Coefficients of the features, shape (n_features, n_targets)."""
        return self.basis @ self.weights

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predicted levels, shape (n_samples, n_targets), in the precision of the targets."""
        scores = np.asarray(X, dtype=np.float64) @ self.basis
        out: np.ndarray = scores.astype(self.weights.dtype) @ self.weights
        out += self.intercept
        return out


def fit_ridge(
    X: ArrayLike | Rotation,
    Y: ArrayLike,
    *,
    alphas: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> LinearFit:
    """Ridge regression of many targets, its one penalty chosen by exact leave-one-out.

    Parameters
    ----------
    X : array_like, shape (n_samples, n_features), or Rotation
        Scaled inputs, or scores, of the training rows, or their rotation. They are centred here
        and the intercept is not penalised.
    Y : array_like, shape (n_samples, n_targets)
    alphas : array_like, optional
        Penalties to try. None: half decades around the mean eigenvalue of X'X, then a finer grid
        about the best of them.
    groups : array_like, shape (n_samples,), optional
        Donor, say, of every sample: the samples of a group are left out together. A single group
        leaves nothing to judge by: its samples are then left out one by one.

    Returns
    -------
    LinearFit
        Minimises sum (Y - X coef - intercept)^2 + alpha * sum coef^2.

    Notes
    -----
    A left-out sample's residual is its residual over 1 - leverage, 0 / 0 in the limit of a small
    penalty when n <= p; those of a left-out group are (I - H)^-1 times its residuals, with H its
    block of the hat matrix. All are computed here as sums of what the penalty keeps, never as a
    difference from 1 or from Y, so that nothing cancels and nothing needs clamping.

    Raises
    ------
    ValueError
        If the row counts differ, there are fewer than three rows, or a penalty is not positive.
    """
    Y = np.asarray(Y)
    rotation = X if isinstance(X, Rotation) else rotate(X)
    if Y.ndim != 2 or len(Y) != len(rotation.left) or len(Y) < 3:
        raise ValueError(f"Y: expected three rows or more, as many as X; found {Y.shape}")
    mean = Y.mean(axis=0, dtype=np.float64)
    scores, products = _project(rotation.left, Y, mean, _blocks(groups))
    grid, losses = _search(rotation, products, alphas)
    losses /= Y.shape[1]
    alpha = float(grid[int(np.argmin(losses))])
    unit_losses = _unit_losses(rotation, products, alpha) / Y.shape[1]
    scores *= (rotation.singular / (rotation.singular**2 + alpha))[:, None]
    intercept = mean - rotation.shift @ scores
    return LinearFit(rotation.basis, scores, intercept, alpha, grid, losses, unit_losses)


@dataclass(frozen=True)
class _Products:
    """Inner products over targets of Z = U'Y (rank, t) and of what is outside, E = Y - U Z."""

    zz: NDArray[np.float64]  # Z Z', (rank, rank)
    ez: NDArray[np.float64]  # E Z', (n, rank)
    ee: NDArray[np.float64]  # diagonal of E E', (n,)
    blocks: list[NDArray[np.intp]]  # groups of one size: rows left out together, (n_groups, size)
    block_ee: list[NDArray[np.float64]]  # E E' of every group, (n_groups, size, size)


def _blocks(groups: ArrayLike | None) -> list[NDArray[np.intp]]:
    """Rows of every group, groups of one size together; none where rows are left out one by one.

    That is where there are no groups, or all samples are of one or each is of its own.
    """
    if groups is None:
        return []
    _, place = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    counts = np.bincount(place)
    if len(counts) < 2 or counts.max() == 1:
        return []
    order, first = np.argsort(place, kind="stable"), np.cumsum(counts) - counts
    return [order[first[counts == n][:, None] + np.arange(n)] for n in np.unique(counts)]


def _spans_all(U: np.ndarray) -> bool:
    """Whether U and the constant vector span every vector, so that nothing is outside."""
    return U.shape[1] >= len(U) - 1


def _project(
    U: np.ndarray, Y: np.ndarray, mean: np.ndarray, blocks: list[NDArray[np.intp]]
) -> tuple[np.ndarray, _Products]:
    """Z = U'(Y - mean) in Y's precision, and the products; one pass over blocks of targets."""
    n, rank = U.shape
    Z = np.empty((rank, Y.shape[1]), dtype=np.result_type(Y.dtype, np.float32))
    squares = [np.zeros((*rows.shape, rows.shape[1])) for rows in blocks]
    products = _Products(np.zeros((rank, rank)), np.zeros((n, rank)), np.zeros(n), blocks, squares)
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
            for rows, square in zip(blocks, squares, strict=True):
                square += outside[rows] @ outside[rows].swapaxes(1, 2)
    return Z, products


def _left_out(rotation: Rotation, products: _Products, alphas: np.ndarray) -> NDArray[np.float64]:
    """Sum over targets, mean over samples, of the squared residuals of left-out rows."""
    sizes = [np.full(len(rows), rows.shape[1]) for rows in products.blocks] or [np.ones(1)]
    share = np.concatenate(sizes) / len(rotation.left)
    return np.array(
        [np.sum(_unit_losses(rotation, products, float(alpha)) * share) for alpha in alphas]
    )


def _unit_losses(rotation: Rotation, products: _Products, alpha: float) -> NDArray[np.float64]:
    """Sum over targets of the squared residuals of every left-out row, or mean over every group."""
    U, kept = rotation.left, alpha / (rotation.singular**2 + alpha)
    K = U * kept
    squared = K @ products.zz + 2 * products.ez  # once for all groups; K' on its right is missing
    if not products.blocks:
        return _leave_one_out(U, K, squared, products)
    parts = [
        _left_out_groups(U[rows], K[rows], squared[rows], outside, len(U)) / rows.shape[1]
        for rows, outside in zip(products.blocks, products.block_ee, strict=True)
    ]
    return np.concatenate(parts)


def _leave_one_out(
    U: np.ndarray, K: np.ndarray, squared: np.ndarray, products: _Products
) -> NDArray[np.float64]:
    free = np.zeros(len(U))
    if not _spans_all(U):
        free = np.maximum(1 - 1 / len(U) - np.einsum("ij,ij->i", U, U), 0)
    one_minus_leverage = np.einsum("ij,ij->i", K, U) + free
    losses = np.einsum("ij,ij->i", squared, K) + products.ee
    return losses / one_minus_leverage**2


def _left_out_groups(
    U: np.ndarray, K: np.ndarray, squared: np.ndarray, outside: np.ndarray, n: int
) -> NDArray[np.float64]:
    """Sum over targets and rows of the squared residuals of groups left out, (n_groups,)."""
    residuals = squared @ K.swapaxes(1, 2) + outside  # times its transpose, but for antisymmetry
    own = K @ U.swapaxes(1, 2)  # I - H on these rows
    if U.shape[2] < n - 1:  # not spanned by U and the constant
        own += np.eye(U.shape[1]) - 1 / n - U @ U.swapaxes(1, 2)
    left = np.linalg.solve(own, residuals)
    return np.trace(np.linalg.solve(own, left.swapaxes(1, 2)), axis1=1, axis2=2)


def _search(
    rotation: Rotation, products: _Products, alphas: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Penalties tried and their losses on left-out rows: those given, or a grid and a finer one."""
    if alphas is not None:
        grid = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
        if not (grid > 0).all():
            raise ValueError("alphas: expected positive penalties")
        return grid, _left_out(rotation, products, grid)
    mean = float(np.mean(rotation.singular**2)) if len(rotation.singular) else 1.0
    coarse = mean * COARSE_GRID
    first = _left_out(rotation, products, coarse)
    fine = coarse[int(np.argmin(first))] * FINE_GRID
    second = _left_out(rotation, products, fine)
    return np.concatenate([coarse, fine]), np.concatenate([first, second])
