"""Rows that a head is trained on beside its training rows: synthetic ones, or rows drawn again."""

from dataclasses import dataclass, replace

import numpy as np

from m1pipe.data.targets import Targets


@dataclass(frozen=True, eq=False)
class AddedRows:
    """Rows that are stepped on, and have no part in scales, weights and early stopping.

    Attributes
    ----------
    X : ndarray of float32, shape (n_added, n_features)
        Features as those of the training rows, not standardised.
    codes : ndarray of int64, shape (n_added,)
        Their classes.
    """

    X: np.ndarray
    codes: np.ndarray


def append_rows(
    X: np.ndarray, targets: Targets, folds: np.ndarray | None, added: AddedRows
) -> tuple[np.ndarray, Targets, np.ndarray | None]:
    """Features, targets and folds of the row order, with the added rows behind the others.

    Parameters
    ----------
    X : ndarray of float32, shape (n, n_features)
    targets : Targets
        Classes of the n rows.
    folds : ndarray of int, shape (n,), or None
        Fold of each row; the added rows get one of their own.
    added : AddedRows

    Returns
    -------
    X, targets, folds
        Of n + n_added rows.
    """
    values = np.concatenate([targets.values, added.codes])
    if folds is not None:
        folds = np.concatenate([folds, np.full(added.codes.size, folds.max() + 1)])
    return np.concatenate([X, added.X]), replace(targets, values=values), folds
