"""Rows that a head is trained on beside its training rows: synthetic ones, or rows drawn again."""

from dataclasses import dataclass

import numpy as np


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
