"""Missing levels of the samples of a comparison: counted, and filled in inside each fold.

An encoder takes missing levels itself (`m1pipe.encoder.missing`). What is fitted on genes, raw or
as principal components of a training fold, has them at the mean of the fold's training rows.
"""

from dataclasses import replace

import numpy as np

from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.own_gene import OwnGenes
from m1pipe.encoder.missing import fill_missing, level_means
from m1pipe.errors import InputError

_BLOCK_ROWS = 1024


def count_missing(matrix: Matrix, rows: np.ndarray) -> int:
    """Missing levels of some rows of a matrix, which are read once.

    Parameters
    ----------
    matrix : Matrix
    rows : ndarray of int, shape (n_samples,)

    Raises
    ------
    InputError
        If a level is infinite, or a sample has no level at all.
    """
    n_missing = 0
    for block in np.array_split(rows, max(1, rows.size // _BLOCK_ROWS)):
        X = matrix.take(block)
        if np.isfinite(X).all():
            continue
        missing = np.isnan(X)
        check_finite(np.where(missing, 0, X), matrix, block)
        empty = block[missing.all(axis=1)]
        if empty.size:
            raise InputError(
                f"{matrix.path or 'data'}: expected a level of at least one gene in every sample; "
                f"found none in {matrix.samples[empty[0]]!r}: leave it out"
            )
        n_missing += int(missing.sum())
    return n_missing


def fill_fold(X: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Levels with those that are missing at their gene's mean over the training rows.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_genes)
        NaN where a level is missing.
    train : ndarray of int, shape (n_train,)
        No other row has a part in what is filled in.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
        X itself where nothing is missing. A gene without a level in any training row is 0 in all
        rows: nothing can be learned of it.
    """
    if not np.isnan(X).any():
        return X
    seen = X[train]
    filled = fill_missing(X, level_means(seen))
    filled[:, np.isnan(seen).all(axis=0)] = 0
    return filled


def fill_own(own: OwnGenes | None, train: np.ndarray) -> OwnGenes | None:
    """The targets' own genes as `fill_fold` leaves genes; None where there are none.

    Parameters
    ----------
    own : OwnGenes or None
    train : ndarray of int, shape (n_train,)
    """
    return None if own is None else replace(own, values=fill_fold(own.values, train))
