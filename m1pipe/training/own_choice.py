"""Whether own genes pay, and at which strengths: judged on rows that a head was not fitted to.

The ridge on the activations and the penalty of the slopes are those with the lowest squared error
on the held-out rows; there the term is switched off for single targets whose error rises, and for
all of them unless their error falls beyond doubt.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from m1pipe.data.own_gene import OwnGenes
from m1pipe.training.own_term import (
    Choice,
    OwnTerm,
    Residuals,
    cross_products,
    fit_term,
    free_genes,
    own_blocks,
    ridge_slopes,
    start_term,
)

RIDGES = (0.1, 1.0, 10.0)
"""Strengths of the ridge on h that are tried, times the mean variance of an activation."""
PENALTIES = np.array([0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
"""Penalties of the slopes that are tried, times the rows; leaving the term out is always tried."""
WORSE_BY = 1.0
"""Standard errors by which the held-out error of a target must rise to switch its term off."""
SURE = 0.95
"""One-sided confidence, over held-out rows or donors, that the term lowers the error at all."""


def choose_term(
    hidden: np.ndarray,
    residuals: "Residuals",
    own: OwnGenes,
    *,
    rows: np.ndarray,
    held_out: np.ndarray,
    groups: np.ndarray | None = None,
) -> Choice:
    """Strengths with the lowest squared error on rows that the head was not fitted to.

    The term is left out unless that error is lower, by a one-sided t-test over these rows or
    their groups, than that of the head alone.

    Parameters
    ----------
    hidden : ndarray, shape (n_samples, n_hidden)
    residuals : Residuals
        Of the head without the term.
    own : OwnGenes
        Of the same samples.
    rows, held_out : ndarray of int
        Rows that fit the slopes, and rows that judge them.
    groups : ndarray, shape (n_samples,), optional
        Donor, say, of every sample.
    """
    off = Choice(RIDGES[0], np.inf, np.zeros(own.column.size, dtype=bool))
    best, least = off, 0.0
    for ridge in RIDGES:
        sums = _Sums.of(start_term(hidden, own, rows, ridge), hidden, residuals, own, rows)
        judged = sums.judge(hidden, residuals, own, held_out)
        for penalty in PENALTIES:
            slope = sums.slopes(penalty)
            change = judged.change(slope)
            if change.sum() < least:
                on = change <= WORSE_BY * judged.error_of_change(slope)
                best, least = Choice(ridge, float(penalty), on), float(change.sum())
    if not np.isfinite(best.penalty):
        return off
    term = fit_term(hidden, residuals, own, rows, best)
    changes = _row_changes(term, hidden, residuals, own, held_out)
    return best if is_lower(_by_unit(changes, groups, held_out)) else off


def is_lower(changes: np.ndarray) -> bool:
    """Whether changes of the error are below zero by a one-sided t-test at `SURE`.

    Parameters
    ----------
    changes : ndarray, shape (n_units,)
        Of rows, donors or inner folds; fewer than two say nothing.
    """
    n = len(changes)
    if n < 2:
        return False
    error = changes.std(ddof=1) / np.sqrt(n)
    return bool(changes.mean() + stats.t.ppf(SURE, n - 1) * error < 0)


@dataclass(frozen=True, eq=False)
class _Judged:
    """Sums over held-out rows from which the change of every target's error follows."""

    cross: np.ndarray  # gene * residual
    square: np.ndarray  # gene^2
    fourth: np.ndarray  # its moments with the residual, for the spread of the change
    third: np.ndarray
    second: np.ndarray
    n: int

    def change(self, slope: np.ndarray) -> np.ndarray:
        """Change of each target's sum of squared errors.

        Parameters
        ----------
        slope : ndarray, shape (n_targets,)

        Returns
        -------
        ndarray, shape (n_targets,)
        """
        found: np.ndarray = slope**2 * self.square - 2 * slope * self.cross
        return found

    def error_of_change(self, slope: np.ndarray) -> np.ndarray:
        """Standard error of that sum over rows.

        Parameters
        ----------
        slope : ndarray, shape (n_targets,)

        Returns
        -------
        ndarray, shape (n_targets,)
        """
        squared = slope**4 * self.fourth - 4 * slope**3 * self.third + 4 * slope**2 * self.second
        spread = squared - self.change(slope) ** 2 / self.n
        found: np.ndarray = np.sqrt(np.maximum(spread, 0))
        return found


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over the fitting rows from which the slopes follow."""

    term: OwnTerm
    cross: np.ndarray
    square: np.ndarray
    n: int

    @classmethod
    def of(
        cls,
        term: OwnTerm,
        hidden: np.ndarray,
        residuals: Residuals,
        own: OwnGenes,
        rows: np.ndarray,
    ) -> "_Sums":
        return cls(term, *cross_products(term, hidden, residuals, own, rows), rows.size)

    def slopes(self, penalty: float) -> np.ndarray:
        """Slope of every target."""
        return ridge_slopes(self.cross, self.square, self.n, penalty)

    def judge(
        self, hidden: np.ndarray, residuals: Residuals, own: OwnGenes, rows: np.ndarray
    ) -> _Judged:
        free = free_genes(self.term, hidden[rows], own.values[rows])
        found = np.zeros((5, own.column.size))
        for targets, genes in own_blocks(own, rows.size):
            x = free[:, genes].astype(np.float64)
            both = x * residuals.block(rows, targets)
            parts = (both, x * x, x**4, x * x * both, both * both)
            found[:, targets] = [part.sum(axis=0) for part in parts]
        return _Judged(found[0], found[1], found[2], found[3], found[4], rows.size)


def _row_changes(
    term: OwnTerm, hidden: np.ndarray, residuals: Residuals, own: OwnGenes, rows: np.ndarray
) -> np.ndarray:
    """Change of the squared error of every row, summed over targets."""
    free = free_genes(term, hidden[rows], own.values[rows])
    total = np.zeros(rows.size)
    for targets, genes in own_blocks(own, rows.size):
        added = free[:, genes] * term.slope[targets]
        total += np.einsum("ij,ij->i", added, added - 2 * residuals.block(rows, targets))
    return total


def _by_unit(changes: np.ndarray, groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Changes of rows, or their means over groups where the rows are of several."""
    if groups is None:
        return changes
    _, place = np.unique(np.asarray(groups)[rows].astype(str), return_inverse=True)
    if place.max() == 0:
        return changes
    means: np.ndarray = np.bincount(place, changes) / np.bincount(place)
    return means
