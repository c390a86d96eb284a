"""The own-gene term where rows are few: slopes from rows that inner heads were not fitted to.

A head of many weights leaves no residual on a handful of rows that it was trained on, and a slope
fitted to what is left is noise. Each inner fold has a head of its own; on its held-out rows the
residual, and the gene freed of what the activations know, are those of new samples. Sums over them
give the slopes, and leaving one inner fold after another out of them judges the penalty.

Cross-fitting of a partially linear model: Chernozhukov et al. 2018, Econometrics Journal 21:C1
(section 4.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m1pipe.data.own_gene import OwnGenes
from m1pipe.training.own_choice import PENALTIES, WORSE_BY, is_lower
from m1pipe.training.own_term import (
    Choice,
    Residuals,
    cross_products,
    ridge_slopes,
    start_term,
)

RIDGE = 1.0
"""Strength of the ridge on the activations, not chosen: latents that were fitted to the inner
held-out rows as well know their genes too closely, and judge a strong ridge too kindly."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Sums over the held-out rows of one inner fold.

    Attributes
    ----------
    cross, square : ndarray, shape (n_targets,)
        Of gene * residual and of gene^2.
    n : int
        Rows.
    """

    cross: np.ndarray
    square: np.ndarray
    n: int


def held_out_sums(
    hidden: np.ndarray,
    residuals: Residuals,
    own: OwnGenes,
    *,
    rows: np.ndarray,
    held_out: np.ndarray,
) -> HeldOut:
    """What the held-out rows of an inner fold say of every target's own gene.

    Parameters
    ----------
    hidden : ndarray, shape (n_samples, n_hidden)
        Activations of the inner head.
    residuals : Residuals
        Of the inner head.
    own : OwnGenes
        Of the same samples.
    rows, held_out : ndarray of int
        Rows that the inner head was fitted to, and rows that it was not.
    """
    both = np.sort(np.concatenate([rows, held_out]))
    term = start_term(hidden, own, rows, RIDGE, scale_rows=both)
    cross, square = cross_products(term, hidden, residuals, own, held_out)
    return HeldOut(cross, square, held_out.size)


def choose_crossed(parts: Sequence[HeldOut]) -> Choice:
    """Slopes over all inner folds, at the strengths with the lowest error on folds left out.

    Parameters
    ----------
    parts : sequence of HeldOut
        One an inner fold, at least two.

    Returns
    -------
    Choice
        Without the term unless the error falls, by a one-sided t-test over the inner folds.
    """
    off = Choice(RIDGE, np.inf, np.zeros(parts[0].cross.size, dtype=bool))
    best, least = off, 0.0
    for penalty in PENALTIES:
        changes = _left_out_changes(parts, float(penalty))
        by_fold = changes.sum(axis=1)
        if by_fold.sum() < least and is_lower(by_fold):
            error = changes.std(axis=0, ddof=1) * np.sqrt(len(changes))
            on = changes.sum(axis=0) <= WORSE_BY * error
            best = Choice(RIDGE, float(penalty), on, _slopes(parts, float(penalty)))
            least = by_fold.sum()
    return best


def _left_out_changes(parts: Sequence[HeldOut], penalty: float) -> np.ndarray:
    """Change of each target's error in each fold by slopes of the others, (folds, targets)."""
    changes = []
    for k, part in enumerate(parts):
        slope = _slopes([*parts[:k], *parts[k + 1 :]], penalty)
        changes.append(slope**2 * part.square - 2 * slope * part.cross)
    return np.stack(changes)


def _slopes(parts: Sequence[HeldOut], penalty: float) -> np.ndarray:
    """Slopes over the held-out rows of some folds."""
    cross = np.sum([part.cross for part in parts], axis=0)
    square = np.sum([part.square for part in parts], axis=0)
    return ridge_slopes(cross, square, sum(part.n for part in parts), penalty)
