"""What values look like, found in one pass: totals, zeros, range, columns that look like labels."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_FIRST_ROWS = 256
_FEW_UNLIKE = 0.02
_FEW_LABELS, _RARER = 3, 0.05  # of whole numbers: columns, share of the rarer class
Block = tuple[int, int, np.ndarray]


@dataclass(frozen=True, eq=False)
class Survey:
    """What a matrix holds, found in one pass.

    Attributes
    ----------
    totals : ndarray of float64, shape (n_samples,)
        Sum of each sample over its genes, missing values left out.
    minimum, maximum : float
        Over all values but NaN; NaN where there are none.
    n_zero, n_missing, n_infinite, n_negative : int
        Numbers of values.
    whole : bool
        All values are whole numbers.
    ones : ndarray of int64, shape (n_genes,)
        Samples in which a gene is 1, for genes that are 0 or 1 and nothing else; else -1.
    unlike : ndarray of int64
        The few genes with fractions where the others' values are whole, or with negative values
        where there are none, by the first rows.
    """

    totals: np.ndarray
    minimum: float
    maximum: float
    n_zero: int
    n_missing: int
    n_infinite: int
    n_negative: int
    whole: bool
    ones: np.ndarray
    unlike: np.ndarray

    @property
    def n_values(self) -> int:
        """Number of values."""
        return len(self.totals) * len(self.ones)


def survey(blocks: Iterable[Block], n_samples: int, n_genes: int) -> Survey:
    """Pass over all rows once.

    Parameters
    ----------
    blocks : iterable of (start, stop, X)
        X : ndarray of float32, shape (stop - start, n_genes).
    n_samples, n_genes : int

    Returns
    -------
    Survey
    """
    totals = np.zeros(n_samples)
    counts = np.zeros(4, dtype=np.int64)
    minimum, maximum, whole = np.inf, -np.inf, True
    ones = np.zeros(n_genes, dtype=np.int64)
    unlike = np.empty(0, dtype=np.int64)
    for start, stop, X in blocks:
        with np.errstate(invalid="ignore"):  # infinities of both signs: counted below
            totals[start:stop] = X.sum(axis=1, dtype=np.float64)
            finite = bool(np.isfinite(totals[start:stop]).all())  # then every value is, too
            if not finite:
                totals[start:stop] = np.nansum(X, axis=1, dtype=np.float64)
        least, most = (np.min, np.max) if finite else (np.fmin.reduce, np.fmax.reduce)
        lowest = float(least(X, axis=None, initial=np.inf))
        counts += _count(X, finite=finite, negative=lowest < 0)
        minimum = min(minimum, lowest)
        maximum = max(maximum, float(most(X, axis=None, initial=-np.inf)))
        # Most matrices with fractions show one in the first row.
        whole = whole and all((part == np.rint(part)).all() for part in (X[:1], X[1:]))
        _count_ones(X, ones)
        if start == 0:
            unlike = _unlike(X[:_FIRST_ROWS])
    if minimum > maximum:
        minimum = maximum = np.nan
    n_zero, n_missing, n_infinite, n_negative = counts.tolist()
    ranges = (n_zero, n_missing, n_infinite, n_negative)
    return Survey(totals, minimum, maximum, *ranges, whole, ones, unlike)


def survey_rows(X: np.ndarray) -> Survey:
    """What some rows, shape (n_samples, n_genes), hold."""
    blocks: Iterable[tuple[int, int, np.ndarray]] = [(0, len(X), X)] if len(X) else []
    return survey(blocks, *X.shape)


def binary_genes(found: Survey) -> np.ndarray:
    """Columns that look like a 0/1 label and not like a gene.

    Among values with fractions every column of only 0 and 1 does; among whole numbers, where rare
    genes are 0 or 1 too, only if such columns are few and balanced.

    Returns
    -------
    ndarray of int64
        Their positions.
    """
    n_samples = len(found.totals)
    ones = found.ones
    if not found.whole:
        return np.flatnonzero((ones > 0) & (ones < n_samples))
    balanced = (ones >= _RARER * n_samples) & (ones <= (1 - _RARER) * n_samples) & (ones > 0)
    columns = np.flatnonzero(balanced)
    return columns if len(columns) <= _FEW_LABELS else columns[:0]


def _count(X: np.ndarray, *, finite: bool, negative: bool) -> np.ndarray:
    """Zeros, NaN, infinities and negatives among values."""
    odd = (0, 0) if finite else (int(np.isnan(X).sum()), int(np.isinf(X).sum()))
    n_negative = np.count_nonzero(X < 0) if negative else 0
    return np.array([X.size - np.count_nonzero(X), *odd, n_negative], dtype=np.int64)


def _unlike(X: np.ndarray) -> np.ndarray:
    """Few columns with fractions, or negative values, among many without."""
    found = np.zeros(X.shape[1], dtype=bool)
    for odd in ((X != np.rint(X)) & ~np.isnan(X), X < 0):
        columns = odd.any(axis=0)
        if 0 < columns.sum() <= _FEW_UNLIKE * X.shape[1]:
            found |= columns
    return np.flatnonzero(found)


def _count_ones(X: np.ndarray, ones: np.ndarray) -> None:
    """Add the ones of columns that are still 0/1 to `ones`, in place; -1 marks the others."""
    candidates = np.flatnonzero(ones >= 0)
    if not len(candidates):
        return
    values = X if len(candidates) == X.shape[1] else X[:, candidates]
    is_one = values == 1
    binary = (is_one | (values == 0)).all(axis=0)
    ones[candidates] = np.where(binary, ones[candidates] + is_one.sum(axis=0), -1)
