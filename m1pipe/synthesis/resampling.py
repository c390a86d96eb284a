"""Resampling: draws of equal size, half-samples for intervals, and floors made of real samples."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from m1pipe import seeds
from m1pipe.synthesis.config import QualityConfig

MOST_IN_HALF = 1000


class Sets(NamedTuple):
    """The sets of samples in one representation: genes, some of the genes, or components.

    Each of shape (n_samples, n_columns); `floor` has as many rows as `real`, made worthless.
    """

    real: np.ndarray
    synthetic: np.ndarray
    holdout: np.ndarray
    floor: np.ndarray


class Rows(NamedTuple):
    """As many rows of each set."""

    real: np.ndarray
    synthetic: np.ndarray
    holdout: np.ndarray


@dataclass(frozen=True, eq=False)
class ResamplingPlan:
    """All rows that a family of scores uses.

    Attributes
    ----------
    size : int
        Samples a side.
    draws : tuple of Rows
        One where every set has just `size` samples.
    halves : tuple of Rows
        About half the samples (donors of the hold-out where known) of each set, without
        replacement.
    inflation : float
        What the standard deviation over `halves` is multiplied by to be a standard error.
    n_independent : int
        Donors of the hold-out where known, else samples.
    """

    size: int
    draws: tuple[Rows, ...]
    halves: tuple[Rows, ...]
    inflation: float
    n_independent: int


def make_plan(
    sizes: tuple[int, int, int],
    config: QualityConfig,
    *,
    groups: np.ndarray | None = None,
    most: int | None = None,
) -> ResamplingPlan:
    """Draw the rows.

    Intervals rest on half-samples without replacement (subsampling, a bootstrap without ties):
    rows drawn twice would be their own nearest neighbours.

    Parameters
    ----------
    sizes : (int, int, int)
        Samples of real, synthetic and hold-out.
    config : QualityConfig
    groups : ndarray of str, shape (n_holdout,), optional
        Donors of the hold-out.
    most : int, optional
        Largest number of samples a side.

    References
    ----------
    Politis & Romano 1994, Annals of Statistics 22:2031; the factor is that of the delete-d
    jackknife, Shao & Wu 1989, Annals of Statistics 17:1176.
    """
    size = min(*sizes, most or max(sizes))
    n_draws = 1 if max(sizes) == size else config.n_draws
    rng = seeds.rng(config.seed, seeds.QUALITY_DRAWS)
    draws = tuple(Rows(*(_rows(rng, n, size) for n in sizes)) for _ in range(n_draws))
    half = min(size // 2, MOST_IN_HALF)
    rng = seeds.rng(config.seed, seeds.QUALITY_HALVES)
    halves = tuple(_half(rng, draws[i % n_draws], half, groups) for i in range(config.n_resamples))
    n_units = size if groups is None else np.unique(groups).size
    share = half / size
    return ResamplingPlan(size, draws, halves, float(np.sqrt(share / (1 - share))), n_units)


def _rows(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    return np.arange(n) if n == size else np.sort(rng.permutation(n)[:size])


def _half(rng: np.random.Generator, draw: Rows, half: int, groups: np.ndarray | None) -> Rows:
    """Half of the rows of a draw; of the hold-out whole donors, as many as come nearest."""

    def plain(rows: np.ndarray) -> np.ndarray:
        return rng.permutation(rows)[:half]

    real, synthetic = plain(draw.real), plain(draw.synthetic)
    if groups is None:
        return Rows(real, synthetic, plain(draw.holdout))
    names, codes = np.unique(groups[draw.holdout], return_inverse=True)
    chosen = rng.permutation(names.size)[: max(names.size // 2, 1)]
    rows = draw.holdout[np.isin(codes, chosen)]
    return Rows(real[: rows.size], synthetic[: rows.size], rng.permutation(rows)[:half])


def units_of_rows(n: int, groups: np.ndarray | None) -> list[np.ndarray]:
    """Rows of every independent unit: a donor where they are known, else a sample.

    Parameters
    ----------
    n : int
        Samples.
    groups : ndarray of str, shape (n,), or None
        Their donors.
    """
    codes = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])


def bootstrapped(units: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Rows of as many units, from `units_of_rows`, drawn with replacement."""
    return np.concatenate([units[i] for i in rng.integers(0, len(units), len(units))])


def shuffled(X: np.ndarray, seed: int) -> np.ndarray:
    """Every gene shuffled on its own: the same marginals, no dependence.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)

    Returns
    -------
    ndarray of the same shape and type
    """
    return seeds.rng(seed, seeds.SHUFFLED_GENES).permuted(X, axis=0)


def drawn_apart(X: np.ndarray, seed: int) -> np.ndarray:
    """Every gene drawn on its own, with replacement: no dependence between genes or samples.

    A shuffled gene keeps its sum, so that what one part of the samples has too much the rest has
    too little: a cross-validated classifier is led astray by it (AUC 0.1 to 0.4, not 0.5).

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)

    Returns
    -------
    ndarray of the same shape and type
    """
    rows = seeds.rng(seed, seeds.SHUFFLED_GENES).integers(0, len(X), X.shape)
    return np.take_along_axis(X, rows, axis=0)


def mean_only(X: np.ndarray) -> np.ndarray:
    """Every value its gene's mean; a read-only view, shape (n_samples, n_genes)."""
    return np.broadcast_to(X.mean(axis=0, dtype=np.float64).astype(X.dtype), X.shape)


def corrupted(X: np.ndarray, seed: int) -> np.ndarray:
    """X with a tenth of the genes shifted by 0.3 of their standard deviations, up or down.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)

    Returns
    -------
    ndarray of the same shape and type
        A mild corruption of known size: what a score makes of it says how sharp the score is.
    """
    rng = seeds.rng(seed, seeds.CORRUPTED_LEVELS)
    genes = rng.permutation(X.shape[1])[: max(X.shape[1] // 10, 1)]
    shift = 0.3 * X[:, genes].std(axis=0) * rng.choice([-1.0, 1.0], genes.size)
    out = X.copy()
    out[:, genes] += shift.astype(X.dtype)
    return out
