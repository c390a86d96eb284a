"""Linear rows with each target's own gene: alone, and beside a ridge on all the genes.

With the penalty of the ridge fixed, the joint fit of `Y = X w + own * slope` profiles to one
division a target: with M the ridge's residual operator, slope = own' M y / (own' M own + penalty).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m1pipe.data.own_gene import OwnGenes
from m1pipe.evaluation.linear import LinearFit, fit_ridge
from m1pipe.evaluation.rotation import Rotation, rotate

PENALTIES = np.array([0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf])
"""Penalties of the slope that are tried, times the training rows; infinity leaves it out."""

_BLOCK_CELLS = 2**21
_NO_SPREAD = 1e-9  # of a standardised gene's sum of squares: nothing of it is its own


@dataclass(frozen=True)
class _Smoother:
    """Residual operator M = I - 11'/n - U diag(1 - kept) U' of a ridge on centred inputs."""

    left: NDArray[np.float64]
    kept: NDArray[np.float64]
    spans_all: bool

    def residual(self, V: np.ndarray) -> NDArray[np.float64]:
        """M V, as sums of what is kept, so that nothing cancels; V of shape (n, k)."""
        centred = V - V.mean(axis=0, dtype=np.float64)
        scores = self.left.T @ centred
        inside = self.left @ (self.kept[:, None] * scores)
        found: NDArray[np.float64] = (
            inside if self.spans_all else inside + (centred - self.left @ scores)
        )
        return found

    def free(self) -> NDArray[np.float64]:
        """Diagonal of M, 1 minus the leverages, shape (n,)."""
        n = len(self.left)
        squared = self.left**2
        outside = 0.0 if self.spans_all else np.maximum(1 - 1 / n - squared.sum(axis=1), 0)
        return np.asarray(squared @ self.kept + outside)


def predict_own_gene(
    Y: np.ndarray, own: OwnGenes, test: OwnGenes, *, X: np.ndarray | None = None, X_test: np.ndarray
) -> np.ndarray:
    """Fit every target on its own gene (and, with X, on all genes) and predict test rows.

    Parameters
    ----------
    Y : ndarray, shape (n_train, n_targets)
    own, test : OwnGenes
        Of the training and of the test rows.
    X, X_test : ndarray, shape (n_train, n_features) and (n_test, n_features)
        Standardised genes of the ridge that is fitted beside the slopes; without X there is none,
        and only the number of rows of X_test is looked at.

    Returns
    -------
    ndarray, shape (n_test, n_targets)
        A target whose gene is missing gets the ridge alone, or the training mean. The penalty of
        the ridge is that of the ridge alone; the one of the slopes, shared by all targets, is
        chosen by exact leave-one-out given that.
    """
    rotation, ridge = _no_ridge(len(Y)), None
    if X is not None:
        ridge, rotation = fit_ridge(X, Y), rotate(X)
    kept = np.zeros(0) if ridge is None else ridge.alpha / (rotation.singular**2 + ridge.alpha)
    spans_all = rotation.left.shape[1] >= len(Y) - 1
    smoother = _Smoother(rotation.left, kept, spans_all)
    train, new = _standardised(own.values, test.values)
    out = _base(Y, ridge, X_test)
    mine = smoother.residual(train)
    other = new - _smooth(rotation, kept, train, X_test if ridge is not None else None)
    losses = _penalty_losses(Y, own, smoother, train, mine)
    penalty = float(PENALTIES[int(losses.argmin())])
    if not np.isfinite(penalty):
        return out
    for targets, genes in _blocks(own, len(Y)):
        slope = _slopes(train[:, genes], mine[:, genes], Y[:, targets], penalty)
        out[:, targets] += (other[:, genes] * slope).astype(out.dtype)
    return out


def _slopes(x: np.ndarray, mine: np.ndarray, y: np.ndarray, penalty: float) -> NDArray[np.float64]:
    """Multiple of each target's own gene, 0 where nothing of the gene is its own."""
    spread = np.einsum("ij,ij->j", x, mine)
    usable = spread > _NO_SPREAD * len(x)
    product = np.einsum("ij,ij->j", mine, y)
    return np.where(usable, product / np.where(usable, spread + penalty * len(x), 1.0), 0.0)


def _penalty_losses(
    Y: np.ndarray, own: OwnGenes, smoother: _Smoother, train: np.ndarray, mine: np.ndarray
) -> NDArray[np.float64]:
    """Leave-one-out squared error of every penalty, over all targets that have a gene."""
    n, free = len(Y), smoother.free()[:, None]
    losses = np.zeros(PENALTIES.size)
    for targets, genes in _blocks(own, n):
        x, m = train[:, genes], mine[:, genes]
        y = Y[:, targets].astype(np.float64)
        left = smoother.residual(y)
        spread = np.einsum("ij,ij->j", x, m)
        usable = spread > _NO_SPREAD * n
        for i, penalty in enumerate(PENALTIES):
            slope = _slopes(x, m, y, penalty) if np.isfinite(penalty) else np.zeros(spread.size)
            shrunk = np.where(usable, 1 / np.where(usable, spread + penalty * n, 1.0), 0.0)
            errors = (left - m * slope) / np.maximum(free - m**2 * shrunk, 1e-6)
            losses[i] += np.einsum("ij,ij->", errors, errors)
    return losses


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by the training rows; a gene that is constant there becomes 0 in both."""
    mean, sd = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    constant = np.ptp(train, axis=0) == 0
    scale = np.where(constant, np.inf, np.where(sd > 0, sd, 1.0))
    return (train - mean) / scale, (test - mean) / scale


def _no_ridge(n: int) -> Rotation:
    """The rotation of a matrix without columns."""
    return Rotation(np.zeros(0), np.zeros((0, 0)), np.zeros((n, 0)), np.zeros(0))


def _base(Y: np.ndarray, ridge: LinearFit | None, X_test: np.ndarray) -> np.ndarray:
    """What is predicted before the own genes: the ridge, or the training means."""
    if ridge is not None:
        return ridge.predict(X_test)
    mean = Y.mean(axis=0, dtype=np.float64).astype(np.result_type(Y.dtype, np.float32))
    return np.tile(mean, (len(X_test), 1))


def _smooth(
    rotation: Rotation, kept: np.ndarray, train: np.ndarray, X_test: np.ndarray | None
) -> np.ndarray | float:
    """What the same ridge predicts of the own genes in the test rows; 0 without a ridge."""
    if X_test is None:
        return 0.0
    weights = ((1 - kept) / rotation.singular)[:, None] * (rotation.left.T @ train)
    predicted: np.ndarray = rotation.transform(X_test) @ weights
    return predicted


def _blocks(own: OwnGenes, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Targets that have a gene, some at a time, and the column of it."""
    step = max(1, _BLOCK_CELLS // n)
    has = own.has
    for start in range(0, has.size, step):
        targets = has[start : start + step]
        yield targets, own.column[targets]
