"""Normal scores by gene: a level's place in its gene's training distribution, as a normal quantile.

Many samples may share a level, mostly zero. Forth, such a level goes to the middle of its places;
back there are two ways. `from_scores` is the inverse: it returns the level that a score came from.
`from_places` reads a number as a draw of N(0, 1) and returns the level at that place, so that
standard normal draws come out with the training distribution, zeros in their share.
"""

from collections.abc import Callable

import numpy as np
from scipy import special

MOST_KNOTS = 512
MOST_ROWS = 4000
FURTHEST = 0.5
_EDGE = 1e-6  # of a gene's spread: levels nearer than this are one


def fit_levels(X: np.ndarray) -> np.ndarray:
    """Quantiles of every gene.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
        NaN where a level is missing; every gene has at least one.

    Returns
    -------
    ndarray of float32, shape (n_knots, n_genes)
        Ascending, at the places (i + 1/2) / n_knots.
    """
    levels: np.ndarray
    if len(X) <= MOST_KNOTS:
        levels = np.sort(X, axis=0)
    else:
        levels = np.quantile(X, places(MOST_KNOTS), axis=0, method="hazen")
    for j in np.flatnonzero(np.isnan(levels).any(axis=0)):
        known = X[~np.isnan(X[:, j]), j]
        levels[:, j] = np.quantile(known, places(len(levels)), method="hazen")
    return levels.astype(np.float32)


def places(n_knots: int) -> np.ndarray:
    """Places of the knots in (0, 1), shape (n_knots,)."""
    return (np.arange(n_knots) + 0.5) / n_knots


def to_scores(X: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Scores of levels, standardised over the knots.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
    levels : ndarray, shape (n_knots, n_genes)
        From `fit_levels`.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
        Beyond the outermost knots a gene's own spread is the unit. NaN stays NaN; a gene that is
        constant in the training rows has 0 everywhere.
    """

    def score(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
        at, scores, spread = _curve(knots)
        return _outwards(x, at, scores, 1 / spread)

    return _by_gene(score, X, levels)


def from_scores(Z: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Levels that scores came from, the inverse of `to_scores`; shapes as there."""

    def level(z: np.ndarray, knots: np.ndarray) -> np.ndarray:
        at, scores, spread = _curve(knots)
        return _outwards(z, scores, at, spread)

    return _by_gene(level, Z, levels)


def from_places(Z: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Levels at the places of standard normal draws.

    Parameters
    ----------
    Z : ndarray, shape (n_samples, n_genes)
    levels : ndarray, shape (n_knots, n_genes)

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
        Beyond the outermost knots they go on in units of the gene's spread, for `FURTHEST` of
        them, except from a level that many samples share, which is where the scale ends.
    """
    quantiles = special.ndtri(places(len(levels)))

    def level(z: np.ndarray, knots: np.ndarray) -> np.ndarray:
        spread = _spread(knots)
        ends = (knots[:2], knots[-2:])
        slopes = [0.0 if np.ptp(end) <= _EDGE * spread else spread for end in ends]
        drawn = np.clip(z, quantiles[0] - FURTHEST, quantiles[-1] + FURTHEST)
        return _outwards(drawn, quantiles, knots, *slopes)

    return _by_gene(level, Z, levels)


def to_places(X: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Standard normal quantiles of the places of levels, the inverse of `from_places`.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
        Levels between those that many samples share; infinite ones stay as they are.
    levels : ndarray, shape (n_knots, n_genes)

    Returns
    -------
    ndarray of float64, shape (n_samples, n_genes)
    """
    quantiles = special.ndtri(places(len(levels)))

    def place(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
        return _outwards(x, knots, quantiles, 1 / _spread(knots))

    return _by_gene(place, X, levels, np.float64)


def _by_gene(
    one: Callable[[np.ndarray, np.ndarray], np.ndarray],
    X: np.ndarray,
    levels: np.ndarray,
    dtype: type = np.float32,
) -> np.ndarray:
    """What a map of a gene's values and its knots makes of every gene."""
    out: np.ndarray = np.empty(X.shape, dtype=dtype)
    for j in range(X.shape[1]):
        out[:, j] = one(X[:, j].astype(np.float64), levels[:, j].astype(np.float64))
    return out


def _curve(knots: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Different levels of a gene, their standardised scores, and the gene's spread."""
    spread = _spread(knots)
    first = np.concatenate([[True], np.diff(knots) > _EDGE * spread])
    run = np.cumsum(first) - 1
    count = np.bincount(run)
    middle = np.bincount(run, weights=places(len(knots))) / count
    scores = special.ndtri(middle)
    scores -= count @ scores / count.sum()
    sd = np.sqrt(count @ scores**2 / count.sum())
    return knots[first], scores / sd if sd > 0 else scores, spread


def _spread(knots: np.ndarray) -> float:
    """Standard deviation of a gene over its knots; 1 where it is constant."""
    sd = float(knots.std())
    return sd if sd > 0 else 1.0


def _outwards(
    values: np.ndarray,
    at: np.ndarray,
    to: np.ndarray,
    slope: float,
    slope_above: float | None = None,
) -> np.ndarray:
    """Linear interpolation, and straight on with these slopes beyond the ends."""
    above = slope if slope_above is None else slope_above
    found: np.ndarray = np.interp(values, at, to)
    found[np.isnan(values)] = np.nan
    with np.errstate(invalid="ignore"):
        below, beyond = values < at[0], values > at[-1]
        found[below] += slope * (values[below] - at[0])
        found[beyond] += above * (values[beyond] - at[-1])
    return found
