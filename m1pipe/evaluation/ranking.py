"""Scores of an order: how far up the true ones stand, for many columns at once."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def ratio(a: np.ndarray, b: np.ndarray) -> NDArray[np.float64]:
    """Quotient of arrays of one shape, in float64; NaN where b is 0."""
    found: NDArray[np.float64] = np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b > 0)
    return found


def roc_aucs(truth: np.ndarray, score: np.ndarray) -> NDArray[np.float64]:
    """Area under the ROC curve of each column.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)

    Returns
    -------
    ndarray of float64, shape (n_columns,)
        Share of the pairs of a true and another sample in which the true one scores higher, ties
        counting one half (Mann and Whitney 1947); NaN for a column without both.
    """
    n_true = truth.sum(axis=0, dtype=np.float64)
    ranks = rankdata(score, axis=0)
    wins = (ranks * truth).sum(axis=0) - n_true * (n_true + 1) / 2
    pairs = n_true * (len(truth) - n_true)
    return ratio(wins, pairs)


def precision_sums(truth: np.ndarray, score: np.ndarray) -> NDArray[np.float64]:
    """Sum over the true samples of the precision down to their score, for each column.

    Divided by the number of true samples it is the average precision without interpolation
    (scikit-learn's `average_precision_score`): samples of one score stand or fall together.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)

    Returns
    -------
    ndarray of float64, shape (n_columns,)
    """
    n_above = rankdata(-score, method="max", axis=0).astype(np.intp)
    order = np.argsort(-score, axis=0, kind="stable")
    hits = np.take_along_axis(truth, order, axis=0).cumsum(axis=0)
    precision = np.take_along_axis(hits, n_above - 1, axis=0) / n_above
    found: NDArray[np.float64] = (precision * truth).sum(axis=0)
    return found


def average_precisions(truth: np.ndarray, score: np.ndarray) -> NDArray[np.float64]:
    """Average precision of each column; NaN for one without both outcomes.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)
    """
    n_true = truth.sum(axis=0)
    varies = (n_true > 0) & (n_true < len(truth))
    return ratio(precision_sums(truth, score), np.where(varies, n_true, 0))


def precisions_at(truth: np.ndarray, score: np.ndarray, k: int) -> NDArray[np.float64]:
    """Share of each sample's k highest-scored columns that are true, shape (n_samples,).

    Columns that tie for the last places count by the share of them that is true: the mean over
    all ways to break the tie, so that equal scores have the precision of chance.

    Parameters
    ----------
    truth : ndarray of bool, shape (n_samples, n_columns)
    score : ndarray, shape (n_samples, n_columns)
    k : int
        At least 1, at most n_columns.
    """
    last = -np.partition(-score, k - 1, axis=1)[:, [k - 1]]
    above, tied = score > last, score == last
    places_left = k - above.sum(axis=1)
    hits = (truth & above).sum(axis=1) + places_left * (truth & tied).sum(axis=1) / tied.sum(axis=1)
    found: NDArray[np.float64] = hits / k
    return found
