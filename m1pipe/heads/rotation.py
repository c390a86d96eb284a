"""Rotation of a matrix onto its own row space: p genes become at most n scores, nothing is lost.

A ridge-penalised linear model with a free intercept is unchanged by centring X and by an
orthogonal rotation of its columns, and puts no weight outside the row space. So a model of 20,531
genes on 317 samples is one of 316 scores.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

_RANK_TOLERANCE = 1e-12  # of the largest eigenvalue: the rounding of a float64 Gram matrix
_CENTRING_TOLERANCE = 1e-26  # of the sum of squares before centring: the rounding of the means


@dataclass(frozen=True)
class Rotation:
    """Thin singular value decomposition X - center = U diag(singular) basis'.

    Attributes
    ----------
    center : ndarray, shape (n_features,)
    basis : ndarray, shape (n_features, rank)
        Orthonormal columns.
    left : ndarray, shape (n_samples, rank)
        U, orthonormal columns.
    singular : ndarray, shape (rank,)
        Positive singular values, largest first.
    on_axes : bool
        The basis is the identity: the columns of X are orthogonal already.
    """

    center: NDArray[np.float64]
    basis: NDArray[np.float64]
    left: NDArray[np.float64]
    singular: NDArray[np.float64]
    on_axes: bool = False

    @property
    def scores(self) -> NDArray[np.float64]:
        """Scores of the rotated rows themselves, shape (n_samples, rank)."""
        found: NDArray[np.float64] = self.left * self.singular
        return found

    @property
    def shift(self) -> NDArray[np.float64]:
        """Scores of the origin with its sign turned, shape (rank,)."""
        found: NDArray[np.float64] = self.center if self.on_axes else self.center @ self.basis
        return found

    @classmethod
    def empty(cls, n_samples: int, n_features: int) -> "Rotation":
        """The rotation of rows of which nothing is told."""
        basis = np.zeros((n_features, 0))
        return cls(np.zeros(n_features), basis, np.zeros((n_samples, 0)), np.zeros(0))

    def lift(self, weights: np.ndarray) -> np.ndarray:
        """Coefficients of the features from those of the scores, (rank, k) -> (n_features, k)."""
        found: np.ndarray = weights if self.on_axes else self.basis @ weights
        return found

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores (X - center) @ basis, shape (n_samples, rank)."""
        return np.asarray(X, dtype=np.float64) @ self.basis - self.center @ self.basis


def rotate(X: ArrayLike) -> Rotation:
    """Rotation of X onto its row space, from the smaller of its two Gram matrices.

    Parameters
    ----------
    X : array_like, shape (n_samples, n_features)

    Returns
    -------
    Rotation
        Directions of a variance below 1e-12 of the largest are left out, and those that are
        rounding errors of the centring: features constant in these rows get no weight.

    Raises
    ------
    ValueError
        If X is not a finite matrix of at least two rows.
    """
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or len(X) < 2 or not np.isfinite(X.sum()):
        raise ValueError(f"X: expected a finite matrix of at least two rows; found {X.shape}")
    center = X.mean(axis=0)
    if X.shape[1] == 0:
        return Rotation(center, np.zeros((0, 0)), np.zeros((len(X), 0)), np.zeros(0), True)
    centred = X - center
    wide = centred.shape[0] <= centred.shape[1]
    gram = centred @ centred.T if wide else centred.T @ centred
    values, vectors = linalg.eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
    floor = max(_RANK_TOLERANCE * values[-1], _CENTRING_TOLERANCE * np.vdot(X, X))
    keep = values > floor
    vectors, singular = vectors[:, keep][:, ::-1], np.sqrt(values[keep][::-1])
    other = (centred.T @ vectors if wide else centred @ vectors) / singular
    left, basis = (vectors, other) if wide else (other, vectors)
    return Rotation(center, basis, left, singular)
