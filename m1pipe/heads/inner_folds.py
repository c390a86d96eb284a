"""Inner folds of training rows, by which penalties and numbers of epochs are chosen."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from m1pipe.data.targets import Targets

INNER_FOLDS = 5
LEAST_GROUPS = 4
FEW_ROWS = 8
"""With fewer training rows there is no hidden part."""
MANY_ROWS, MANY_LEVELS = 500, 100
"""From so many training rows on, or a fifth of them with so many levels each, one inner fold is
held out in place of all in turn."""
MISSED_ROWS = 0.5
"""So many more rows are taken to be of another class than the likeliest one when losses of classes
are compared: where few rows are held out and none is missed, the log loss alone would always take
what is surest, the weakest penalty and the longest training."""
SURE = 0.95
"""One-sided confidence, over held-out rows or groups, that something lowers the loss."""


def inner_folds(
    targets: ArrayLike,
    kind: str,
    groups: ArrayLike | None,
    seed: int,
    *,
    n_folds: int = INNER_FOLDS,
) -> NDArray[np.intp]:
    """Inner fold of each row: units (donors or rows) dealt out class by class, shuffled.

    Parameters
    ----------
    targets : array_like
        As for `fit_logistic`; of levels, or of several labels, only the number of rows counts.
    kind : str
    groups : array_like, shape (n_samples,), or None
    seed : int
    n_folds : int
        Fewer where there are fewer units.

    Returns
    -------
    ndarray of int, shape (n_samples,)
    """
    n = np.shape(targets)[0]
    codes = np.asarray(targets) if kind in ("binary", "multiclass") else np.zeros(n, dtype=np.intp)
    names = np.arange(n) if groups is None else np.asarray(groups).astype(str)
    _, first, unit = np.unique(names, return_index=True, return_inverse=True)
    n_units = len(first)
    order = np.random.default_rng(seed).permutation(n_units)
    order = order[np.argsort(codes[first][order], kind="stable")]
    fold_of_unit = np.empty(n_units, dtype=np.intp)
    fold_of_unit[order] = np.arange(n_units) % min(n_folds, n_units)
    return fold_of_unit[unit]


def fold_names(folds: np.ndarray) -> NDArray[np.intp]:
    """Inner folds, ascending; rows at -1 are in none."""
    return np.unique(folds[folds >= 0])


def deal_inner(
    targets: Targets, groups: np.ndarray | None, seed: int, validation: float
) -> NDArray[np.intp]:
    """Inner fold of every training row.

    Parameters
    ----------
    targets : Targets
        Of the training rows; classes are dealt evenly.
    groups : ndarray, shape (n_rows,), or None
        Never in two folds; a single one is not looked at.
    seed : int
    validation : float
        Share of the rows that a fold holds; 0: as with five folds.

    Returns
    -------
    ndarray of int, shape (n_rows,)
    """
    if groups is not None and np.unique(np.asarray(groups).astype(str)).size < 2:
        groups = None
    n_folds = max(2, round(1 / validation)) if validation > 0 else 5
    return inner_folds(targets.values, targets.kind, groups, seed, n_folds=n_folds)


def missed_share(n_rows: int) -> float:
    """Share of a row's loss that is taken of the likeliest other class, `MISSED_ROWS` in all.

    >>> missed_share(9)
    0.05
    """
    return MISSED_ROWS / (n_rows + 1)


def judging_folds(folds: np.ndarray, groups: np.ndarray | None, n_outputs: int) -> NDArray[np.intp]:
    """Folds whose rows are held out to judge a hidden part: all, or the first of many rows.

    Parameters
    ----------
    folds : ndarray of int, shape (n,)
        -1: in none.
    groups : ndarray, shape (n,), or None
        One fold is enough where it has `LEAST_GROUPS`, or there are no groups.
    n_outputs : int
        Levels or classes.
    """
    names = fold_names(folds)
    if folds.size < FEW_ROWS or names.size == 0 or (folds == names[0]).all():
        return names[:0]
    many = MANY_ROWS // 5 if n_outputs >= MANY_LEVELS else MANY_ROWS
    few_groups = False
    if groups is not None:
        few_groups = np.unique(groups[folds == names[0]].astype(str)).size < LEAST_GROUPS
    return names[:1] if folds.size >= many and not few_groups else names


def stepped_rows(
    targets: Targets, rows: np.ndarray, groups: np.ndarray | None, seed: int, validation: float
) -> np.ndarray:
    """Training rows that are never held out of a head with added rows, in their order.

    Parameters
    ----------
    targets : Targets
        Of all samples.
    rows : ndarray of int, shape (n_rows,)
    groups : ndarray, shape (n_samples,), or None
    seed, validation
        As for `deal_inner`.
    """
    if validation == 0:
        return rows
    own = None if groups is None else groups[rows]
    return rows[deal_inner(targets.take(rows), own, seed, validation) != 0]


def is_lower(changes: np.ndarray, n_tried: int = 1) -> bool:
    """Whether changes of a loss are below zero by a one-sided t-test at `SURE`.

    Parameters
    ----------
    changes : ndarray, shape (n_units,)
        Of rows or groups; fewer than two say nothing.
    n_tried : int
        Alternatives of which these are the changes of the best: the level is divided by it.
    """
    n = len(changes)
    if n < 2:
        return False
    error = changes.std(ddof=1) / np.sqrt(n)
    sure = 1 - (1 - SURE) / n_tried
    return bool(changes.mean() + stats.t.ppf(sure, n - 1) * error < 0)
