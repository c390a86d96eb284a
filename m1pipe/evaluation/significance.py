"""Tests of one difference in loss, on folds or on samples, with their intervals.

Everything here takes differences d = loss of model a - loss of model b (negative: a is better)
and is two-sided. A test that has nothing to go on (one unit, or differences that are all equal and
not zero) has p = NaN; differences that are all zero have p = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

LEVEL = 0.95
EXACT_FLIPS = 14  # 2**14 sign patterns are enumerated; more units are drawn from


@dataclass(frozen=True)
class TestResult:
    """One test of one difference.

    Attributes
    ----------
    difference : float
        Mean of the differences over the units of the test.
    ci_low, ci_high : float
        95 % interval of the mean difference; NaN where the test gives none.
    statistic, p : float
        Two-sided; NaN where there is nothing to test.
    effect : float
        Effect size; what it is depends on the test (see each function).
    n_independent : int
        Units behind the number: folds, samples or donors.
    """

    difference: float
    ci_low: float
    ci_high: float
    statistic: float
    p: float
    effect: float
    n_independent: int


def nadeau_bengio(differences: ArrayLike, n_folds: int) -> TestResult:
    """Corrected resampled t-test over the fold differences of (repeated) k-fold.

    Parameters
    ----------
    differences : array_like, shape (n_repeats * n_folds,)
        Difference of the mean test losses of every fold.
    n_folds : int
        k of one repeat: n_test / n_train is 1 / (k - 1).

    Returns
    -------
    TestResult
        t = mean / sqrt((1/J + 1/(k-1)) * s^2) on J - 1 degrees of freedom, J fold differences.
        `effect` is d_z over folds.

    References
    ----------
    Nadeau & Bengio 2003, Machine Learning 52:239; scikit-learn's example "Statistical comparison
    of models using grid search" gives the same formula.
    """
    d = as_losses(differences)
    if n_folds < 2:
        raise ValueError(f"folds: expected at least 2; found {n_folds}")
    return _t_result(d, variance_of_mean=1 / len(d) + 1 / (n_folds - 1))


def draws_t(differences: ArrayLike, n_folds: int, n_train: int, n_samples: int) -> TestResult:
    """Corrected t-test where every fold was fitted to several draws of its training rows.

    Parameters
    ----------
    differences : array_like, shape (n_repeats * n_folds, n_draws)
        Difference of the mean test losses of every fold and draw.
    n_folds : int
        k of one repeat.
    n_train : int
        m, the training rows of a draw, fewer than the N = n (1 - 1/k) that it is drawn from.
    n_samples : int
        n, all samples.

    Returns
    -------
    TestResult
        t = mean / sqrt(V) with V = (1/k + 1/(k-1)) (s_b^2 - s_w^2 / D) + (m/n + (1 - m/n) / (J D))
        s_w^2 / (1 - m/N): J folds of all repeats, D draws; s_b^2 is the variance of the folds'
        means, s_w^2 the mean variance of the draws within a fold, which have m/N of their rows in
        common; draws of other folds have m/n. Degrees of freedom by Satterthwaite. With one draw
        it is `nadeau_bengio`. `effect` is d_z over the folds' means.

    Notes
    -----
    Draws that are averaged before the test of Nadeau and Bengio lose the variance that all draws
    of these samples share: that rejects far too often (benchmarks/draws_simulation.py).
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2 or len(d) < n_folds:
        raise ValueError(
            f"differences: expected shape (folds, draws), folds >= {n_folds}: {d.shape}"
        )
    (n, n_draws), means = d.shape, as_losses(d.mean(axis=1))
    if n_draws == 1 or is_flat(means):
        return nadeau_bengio(means, n_folds)
    between, within = float(means.var(ddof=1)), float(d.var(axis=1, ddof=1).mean())
    of_folds = 1 / n_folds + 1 / (n_folds - 1)
    shared = n_train / n_samples
    apart = 1 - n_train / (n_samples * (1 - 1 / n_folds))
    if apart <= 0:
        raise ValueError(f"n_train: expected fewer than a fold has; found {n_train} of {n_samples}")
    of_draws = (shared + (1 - shared) / (n * n_draws)) / apart
    variance = of_folds * max(between - within / n_draws, 0.0) + of_draws * within
    parts = (of_folds * between) ** 2 / (n - 1)
    parts += ((of_draws - of_folds / n_draws) * within) ** 2 / (n * (n_draws - 1))
    return _t_of(means, error=float(np.sqrt(variance)), df=variance**2 / parts)


def paired_t(differences: ArrayLike) -> TestResult:
    """Paired t-test on per-sample differences, each sample once.

    It speaks of these trained models only: the luck of the training rows is not in it. Over fold
    differences it is the naive fold test, which rejects far too often.

    Parameters
    ----------
    differences : array_like, shape (n_samples,)

    Returns
    -------
    TestResult
        `effect` is d_z, the mean over the standard deviation.
    """
    d = as_losses(differences)
    return _t_result(d, variance_of_mean=1 / len(d))


def clustered_t(differences: ArrayLike, groups: ArrayLike) -> TestResult:
    """t-test on the donors' mean differences: each donor weighs the same.

    Parameters
    ----------
    differences : array_like, shape (n_samples,)
    groups : array_like, shape (n_samples,)
        The donor of each sample.

    Returns
    -------
    TestResult
        `effect` is d_z over donors; `n_independent` the number of donors.
    """
    return paired_t(group_means(differences, groups))


def wilcoxon(differences: ArrayLike) -> TestResult:
    """Wilcoxon signed-rank test (zeros by Pratt), for symmetric differences only.

    Parameters
    ----------
    differences : array_like, shape (n_samples,)

    Returns
    -------
    TestResult
        `statistic` is the smaller rank sum, as in scipy; no interval. `effect` is the
        matched-pairs rank-biserial correlation (W+ - W-) / (W+ + W-).
    """
    d = as_losses(differences)
    ranks = stats.rankdata(np.abs(d))
    plus, minus = ranks[d > 0].sum(), ranks[d < 0].sum()
    if plus + minus == 0:
        return TestResult(float(d.mean()), np.nan, np.nan, 0.0, 1.0, 0.0, len(d))
    test = stats.wilcoxon(d, zero_method="pratt")
    effect = float((plus - minus) / (plus + minus))
    statistic, p = float(test.statistic), float(test.pvalue)
    return TestResult(float(d.mean()), np.nan, np.nan, statistic, p, effect, len(d))


def sign_flip(differences: ArrayLike, *, seed: int = 0, n_draws: int = 9999) -> TestResult:
    """Permutation test that flips the sign of each unit's difference.

    Parameters
    ----------
    differences : array_like, shape (n_units,)
        One a unit: donors or strata (see `group_means`), or samples.
    seed : int
        Of the drawn sign patterns.
    n_draws : int
        Patterns drawn where there are too many to enumerate.

    Returns
    -------
    TestResult
        p is the share of patterns whose mean is at least as far from 0; the observed pattern is
        counted in, so that it is never 0. `statistic` is the mean; `effect` is d_z; no interval.

    Notes
    -----
    `scipy.stats.permutation_test` does the same a hundred times slower (4,000 units: 32 s).
    """
    d = as_losses(differences)
    mean, n = float(d.mean()), len(d)
    if n <= EXACT_FLIPS:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
        sums = (1.0 - 2.0 * bits) @ d
        extra = 0
    else:
        rng = np.random.default_rng(seed)
        sums = _drawn_sums(d, rng, n_draws)
        extra = 1
    reached = np.abs(sums) >= abs(d.sum()) - 1e-12 * np.abs(d).sum()
    p = (int(reached.sum()) + extra) / (len(sums) + extra)
    return TestResult(mean, np.nan, np.nan, mean, float(p), cohen_dz(d), n)


def sign_flip_interval(differences: ArrayLike, *, seed: int = 0) -> TestResult:
    """`sign_flip` with the t interval of the mean over the same units.

    Parameters
    ----------
    differences : array_like, shape (n_units,)
        One a unit, such as a stratum that was left out: units of unequal size weigh the same.
    seed : int
        Of drawn sign patterns.
    """
    flipped, t = sign_flip(differences, seed=seed), paired_t(differences)
    return replace(flipped, ci_low=t.ci_low, ci_high=t.ci_high)


def bootstrap_interval(
    differences: ArrayLike, *, seed: int = 0, n_draws: int = 2000
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (95 %) of the mean over units.

    Parameters
    ----------
    differences : array_like, shape (n_units,)
        One a unit: samples, or donors (see `group_means`).

    Returns
    -------
    low, high : float
        NaN below two units; the mean twice where all differences are equal.

    Notes
    -----
    The numbers are those of `scipy.stats.bootstrap` with the same generator. Its jackknife takes
    n x n values (17,000 samples: 2.4 GB); for a mean the acceleration is known in closed form.

    References
    ----------
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 14.3.
    """
    d = as_losses(differences)
    if len(d) < 2:
        return np.nan, np.nan
    if is_flat(d):
        return float(d.mean()), float(d.mean())
    rng = np.random.default_rng(seed)
    means = np.array([d[rng.integers(0, len(d), len(d))].mean() for _ in range(n_draws)])
    below = (np.sum(means < d.mean()) + 0.5 * np.sum(means == d.mean())) / n_draws
    bias = stats.norm.ppf(np.clip(below, 1 / n_draws, 1 - 1 / n_draws))
    centred = d - d.mean()
    acceleration = np.sum(centred**3) / (6 * np.sum(centred**2) ** 1.5)
    z = bias + stats.norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def group_means(differences: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Mean difference of each donor (or other group), donors in sorted order.

    Parameters
    ----------
    differences, groups : array_like, shape (n_samples,)
    """
    d, names = as_losses(differences), pd.Series(np.asarray(groups))
    if len(names) != len(d):
        raise ValueError(f"groups: expected {len(d)}; found {len(names)}")
    if names.isna().any():
        raise ValueError("groups: a sample has none")
    means = pd.Series(d).groupby(names.to_numpy()).mean()
    return np.asarray(means, dtype=np.float64)


def holm(p_values: Sequence[float] | np.ndarray) -> NDArray[np.float64]:
    """Holm's adjusted p values of a declared family.

    Parameters
    ----------
    p_values : sequence of float, shape (n_tests,)
        A NaN keeps its place in the size of the family (as a p of 1) and stays NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p):
        return p
    adjusted = multipletests(np.where(np.isnan(p), 1.0, p), method="holm")[1]
    return np.where(np.isnan(p), np.nan, adjusted)


def benjamini_hochberg(
    p_values: Sequence[float] | np.ndarray, *, missing: Literal["count", "drop"] = "count"
) -> NDArray[np.float64]:
    """Benjamini and Hochberg's adjusted p values of a declared family.

    Parameters
    ----------
    p_values : sequence of float, shape (n_tests,)
        NaN stays NaN.
    missing : "count" or "drop"
        Whether a NaN keeps its place in the size of the family (as a p of 1).
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = ~np.isnan(p)
    adjusted = np.full(p.shape, np.nan)
    if known.any():
        family = p[known] if missing == "drop" else np.where(known, p, 1.0)
        found = stats.false_discovery_control(family)
        adjusted[known] = found if missing == "drop" else found[known]
    return adjusted


def _t_result(d: np.ndarray, *, variance_of_mean: float) -> TestResult:
    """t-test of the mean of d whose variance is `variance_of_mean` times the sample variance."""
    mean, n = float(d.mean()), len(d)
    if n < 2 or (is_flat(d) and d.any()):
        return TestResult(mean, np.nan, np.nan, np.nan, np.nan, np.nan, n)
    if not d.any():
        return TestResult(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, n)
    return _t_of(d, error=float(np.sqrt(variance_of_mean * d.var(ddof=1))), df=n - 1)


def _t_of(d: np.ndarray, *, error: float, df: float) -> TestResult:
    """t-test of the mean of d, whose standard error is known."""
    mean = float(d.mean())
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(mean / error), df))
    return TestResult(mean, mean - half, mean + half, mean / error, p, cohen_dz(d), len(d))


def _drawn_sums(d: np.ndarray, rng: np.random.Generator, n_draws: int) -> NDArray[np.float64]:
    """Sums of d under random signs: a random byte looks up the signed sum of eight units."""
    eights = np.pad(d, (0, -len(d) % 8)).reshape(-1, 8)
    signs = 1.0 - 2.0 * (np.arange(256)[:, None] >> np.arange(8) & 1)
    table = eights @ signs.T
    place = np.arange(len(table))
    chunk = max(1, 2**20 // len(table))
    parts = []
    for start in range(0, n_draws, chunk):
        size = (min(chunk, n_draws - start), len(table))
        parts.append(table[place, rng.integers(0, 256, size, dtype=np.uint8)].sum(axis=1))
    return np.concatenate(parts)


def cohen_dz(differences: ArrayLike) -> float:
    """Mean over standard deviation of paired differences; 0 where all are 0, else NaN if flat.

    Parameters
    ----------
    differences : array_like, shape (n,)
    """
    d = as_losses(differences)
    if is_flat(d):
        return 0.0 if not d.any() else np.nan
    return float(d.mean() / d.std(ddof=1))


def relative_difference(loss_a: ArrayLike, loss_b: ArrayLike) -> float:
    """Mean difference as a share of b's mean loss: -0.1 is a reduction by a tenth.

    Parameters
    ----------
    loss_a, loss_b : array_like, shape (n,)
    """
    a, b = as_losses(loss_a), as_losses(loss_b)
    return float((a - b).mean() / b.mean()) if b.mean() else np.nan


def is_flat(d: np.ndarray) -> bool:
    """Whether differences are all equal, up to the rounding of a subtraction.

    Parameters
    ----------
    d : ndarray, shape (n_units,)
    """
    return len(d) < 2 or float(np.ptp(d)) <= 1e-12 * float(np.abs(d).max())


def as_losses(values: ArrayLike) -> NDArray[np.float64]:
    """Losses, or differences of losses, as float64.

    Parameters
    ----------
    values : array_like, shape (n_units,)

    Raises
    ------
    ValueError
        If there is none, or one is not finite, or the shape is another.
    """
    d = np.asarray(values, dtype=np.float64)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError(f"losses: expected finite numbers, shape (n,); found {d.shape}")
    return d
