"""Marginal fidelity: every gene by itself, synthetic samples against held-out ones."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.nonparametric.smoothers_lowess import lowess
from statsmodels.stats.multitest import multipletests

from m1pipe.synthesis.scores import CORRELATION, POSITIVE, SHARE, Definition, Values

FDR = 0.05
_BLOCK = 256
_MOST_FOR_TREND = 3000
_NO_RAW = "the values are no logarithms of levels"

_definition = partial(Definition, "marginal")
MARGINAL = (
    _definition(
        "ks_mean",
        "mean KS",
        "lower",
        "largest gap between the two distributions of a gene, mean over genes",
        SHARE,
    ),
    _definition("ks_median", "median KS", "lower", "the same, of the middle gene", SHARE),
    _definition(
        "ks_p95", "KS, 95th percentile", "lower", "the same, of the worst twentieth", SHARE
    ),
    _definition(
        "ks_significant",
        "KS, genes that differ",
        "lower",
        "share of genes that differ at 5 % false discoveries; grows with samples",
        SHARE,
        has_interval=False,
    ),
    _definition(
        "wasserstein_mean",
        "mean Wasserstein",
        "lower",
        "how far values have to move, in standard deviations of the gene",
        POSITIVE,
    ),
    _definition(
        "mean_r", "gene means, r", "higher", "correlation over genes of the means", CORRELATION
    ),
    _definition("mean_rank_r", "gene means, rank r", "higher", "the same, of ranks", CORRELATION),
    _definition(
        "mean_r_raw",
        "gene means, r, linear",
        "higher",
        "the same, before the log",
        CORRELATION,
    ),
    _definition(
        "sd_r",
        "gene sds, r",
        "higher",
        "correlation over genes of standard deviations",
        CORRELATION,
    ),
    _definition("sd_rank_r", "gene sds, rank r", "higher", "the same, of ranks", CORRELATION),
    _definition(
        "sd_r_raw", "gene sds, r, linear", "higher", "the same, before the log", CORRELATION
    ),
    _definition(
        "variance_ratio",
        "geometric variance ratio",
        "one",
        "typical variance of a gene over the real one; below 1: too little, above 1: too much",
        POSITIVE,
    ),
    _definition(
        "variance_ratio_arithmetic", "arithmetic variance ratio", "one", "mean of ratios", POSITIVE
    ),
    _definition(
        "variance_ratio_pooled", "pooled variance ratio", "one", "ratio of the sums", POSITIVE
    ),
    _definition(
        "variance_ratio_raw",
        "geometric variance ratio, linear",
        "one",
        "the same before the log",
        POSITIVE,
    ),
    _definition(
        "variance_log_rms",
        "RMS log variance ratio",
        "lower",
        "how far single genes are off: a mean ratio of 1 can hide half doubled, half halved",
        POSITIVE,
    ),
    _definition(
        "zero_gap", "zeros, mean gap", "lower", "difference in the share of values <= 0", SHARE
    ),
    _definition(
        "zero_r", "zeros, r", "higher", "correlation over genes of the share of zeros", CORRELATION
    ),
    _definition(
        "trend_excess",
        "mean-variance trend",
        "lower",
        "RMSE of log variances about the real trend, less that of the hold-out itself",
    ),
    _definition(
        "outside_range",
        "outside the range",
        "lower",
        "share of values beyond the real extremes",
        SHARE,
    ),
    _definition(
        "totals_ks",
        "sample totals, KS",
        "lower",
        "largest gap of the distributions of the sums of linear levels per sample",
        SHARE,
    ),
)


@dataclass(frozen=True, eq=False)
class Trend:
    """Smooth log variance at every log mean (natural logs), fitted to the real samples.

    Attributes
    ----------
    log_mean, log_variance : ndarray, shape (n_points,)
        Ascending in log_mean; between and beyond the points it is interpolated linearly.
    """

    log_mean: np.ndarray
    log_variance: np.ndarray

    def rmse(self, mean: np.ndarray, variance: np.ndarray) -> float:
        """Root mean square distance of the genes from the trend; constant genes left out.

        Parameters
        ----------
        mean, variance : ndarray, shape (n_genes,)
            Linear.
        """
        usable = (mean > 0) & (variance > 0)
        if not usable.any():
            return float("nan")
        fitted = np.interp(np.log(mean[usable]), self.log_mean, self.log_variance)
        return float(np.sqrt(np.mean((np.log(variance[usable]) - fitted) ** 2)))


def fit_trend(X: np.ndarray, *, is_log: bool) -> Trend:
    """Lowess of log variance on log mean over genes, on the linear scale where there is one.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
    is_log : bool
        Values are log2(1 + x) of a linear level; otherwise there is no other scale.

    Raises
    ------
    ValueError
        If fewer than three genes have a positive mean and vary.
    """
    step = max(X.shape[1] // _MOST_FOR_TREND, 1)
    moments = _moments(X[:, ::step], is_log)
    mean, variance = _trend_axes(moments, "", is_log)
    usable = (mean > 0) & (variance > 0)
    if usable.sum() < 3:
        raise ValueError("fewer than three genes vary about a positive mean: there is no trend")
    points = lowess(np.log(variance[usable]), np.log(mean[usable]), frac=0.3)
    log_mean, first = np.unique(points[:, 0], return_index=True)
    return Trend(log_mean, points[first, 1])


def distances(A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kolmogorov-Smirnov statistic and Wasserstein-1 distance of every column.

    Parameters
    ----------
    A, B : ndarray, shape (n_samples, n_columns)
        The same number of samples.

    Returns
    -------
    ks, w1 : ndarray, shape (n_columns,)
    """
    a, b = np.sort(A.T, axis=1), np.sort(B.T, axis=1)
    w1 = np.abs(a - b).mean(axis=1, dtype=np.float64)
    ks = np.array([_ks(x, y) for x, y in zip(a, b, strict=True)])
    return ks, w1


def _ks(x: np.ndarray, y: np.ndarray) -> float:
    """Two-sample statistic of sorted values: gaps are largest at, or just before, a value of x."""
    steps = np.arange(x.size + 1) / x.size
    at = steps[1:] - np.searchsorted(y, x, side="right") / y.size
    before = np.searchsorted(y, x, side="left") / y.size - steps[:-1]
    return float(max(at.max(), before.max()))


def gene_table(H: np.ndarray, A: np.ndarray, *, is_log: bool) -> pd.DataFrame:
    """Everything about every gene in both sets, a block of genes at a time.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_genes)
        Hold-out, and the samples to be scored; the same number of rows.
    is_log : bool
        As for `fit_trend`.

    Returns
    -------
    DataFrame, one row a gene
        ks, w1, outside, and for each set (suffix _h, _a) mean, variance, zeros; raw_mean and
        raw_variance where values are logarithms. Variances have the divisor n - 1.
    """
    parts = []
    for start in range(0, H.shape[1], _BLOCK):
        h, a = H[:, start : start + _BLOCK], A[:, start : start + _BLOCK]
        ks, w1 = distances(h, a)
        outside = ((a < h.min(axis=0)) | (a > h.max(axis=0))).mean(axis=0)
        part = {"ks": ks, "w1": w1, "outside": outside}
        part |= {f"{name}_h": values for name, values in _moments(h, is_log).items()}
        part |= {f"{name}_a": values for name, values in _moments(a, is_log).items()}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def marginal_scores(
    H: np.ndarray, A: np.ndarray, trend: Trend | None = None, *, is_log: bool
) -> Values:
    """All marginal scores.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_genes)
        Hold-out, and the samples to be scored; the same number of rows.
    trend : Trend, optional
        Without it the score about the trend is NaN.
    is_log : bool
        As for `fit_trend`.

    Returns
    -------
    mapping of every name in `MARGINAL` to a float, or to why it does not apply
    """
    genes = gene_table(H, A, is_log=is_log)
    values: dict[str, float | str] = {**_distance_scores(genes, len(H), len(A))}
    values |= _agreement(genes, is_log)
    values |= _variance_ratios(genes, is_log)
    zeros = genes[["zeros_h", "zeros_a"]].to_numpy()
    values["zero_gap"] = float(np.abs(zeros[:, 0] - zeros[:, 1]).mean())
    values["zero_r"] = (
        pearson(zeros[:, 0], zeros[:, 1]) if zeros[:, 0].any() else "no real value is zero"
    )
    values["outside_range"] = float(genes["outside"].mean())
    values["trend_excess"] = float("nan")
    if trend is not None:
        judged = trend.rmse(*_trend_axes(genes, "_a", is_log))
        values["trend_excess"] = judged - trend.rmse(*_trend_axes(genes, "_h", is_log))
    values["totals_ks"] = _NO_RAW
    if is_log:
        values["totals_ks"] = _ks(np.sort(_totals(H)), np.sort(_totals(A)))
    return values


def _distance_scores(genes: pd.DataFrame, n: int, m: int) -> dict[str, float]:
    ks = genes["ks"].to_numpy()
    p = stats.kstwobign.sf(ks * np.sqrt(n * m / (n + m)))
    sd = np.sqrt(genes["variance_h"].to_numpy())
    varies = sd > 0
    w1 = genes["w1"].to_numpy()[varies] / sd[varies]
    return {
        "ks_mean": float(ks.mean()),
        "ks_median": float(np.median(ks)),
        "ks_p95": float(np.quantile(ks, 0.95)),
        "ks_significant": float(multipletests(p, alpha=FDR, method="fdr_bh")[0].mean()),
        "wasserstein_mean": float(w1.mean()) if varies.any() else float("nan"),
    }


def _agreement(genes: pd.DataFrame, is_log: bool) -> dict[str, float | str]:
    """Correlations over genes of means and of standard deviations."""
    values: dict[str, float | str] = {}
    for name, column in (("mean", "mean"), ("sd", "variance")):
        h, a = genes[f"{column}_h"].to_numpy(), genes[f"{column}_a"].to_numpy()
        if name == "sd":
            h, a = np.sqrt(h), np.sqrt(a)
        values[f"{name}_r"] = pearson(h, a)
        values[f"{name}_rank_r"] = pearson(stats.rankdata(h), stats.rankdata(a))
        values[f"{name}_r_raw"] = _NO_RAW
        if is_log:
            h, a = genes[f"raw_{column}_h"].to_numpy(), genes[f"raw_{column}_a"].to_numpy()
            values[f"{name}_r_raw"] = pearson(*((h, a) if name == "mean" else map(np.sqrt, (h, a))))
    return values


def _variance_ratios(genes: pd.DataFrame, is_log: bool) -> dict[str, float | str]:
    """Ratios of the variances of genes that vary in the hold-out."""
    h, a = genes["variance_h"].to_numpy(), genes["variance_a"].to_numpy()
    varies = h > 0
    ratio = a[varies] / h[varies]
    values: dict[str, float | str] = dict.fromkeys(
        ("variance_ratio", "variance_log_rms", "variance_ratio_arithmetic"), float("nan")
    )
    values["variance_ratio_pooled"] = float(a.sum() / h.sum()) if varies.any() else float("nan")
    if varies.any():
        values["variance_ratio_arithmetic"] = float(ratio.mean())
        values["variance_ratio"] = _geometric(ratio)
        positive = ratio[ratio > 0]
        if positive.size:
            values["variance_log_rms"] = float(np.sqrt(np.mean(np.log(positive) ** 2)))
    values["variance_ratio_raw"] = _NO_RAW
    if is_log:
        h, a = genes["raw_variance_h"].to_numpy(), genes["raw_variance_a"].to_numpy()
        values["variance_ratio_raw"] = _geometric(a[h > 0] / h[h > 0])
    return values


def _geometric(ratio: np.ndarray) -> float:
    """Geometric mean of the positive ratios; 0 where none is positive."""
    positive = ratio[ratio > 0]
    return float(np.exp(np.log(positive).mean())) if positive.size else 0.0


def _moments(X: np.ndarray, is_log: bool) -> dict[str, np.ndarray]:
    out = {
        "mean": X.mean(axis=0, dtype=np.float64),
        "variance": _variance(X),
        "zeros": (X <= 0).mean(axis=0),
    }
    if is_log:
        raw = _linear(X)
        out |= {"raw_mean": raw.mean(axis=0), "raw_variance": _variance(raw)}
    return out


def _variance(X: np.ndarray) -> np.ndarray:
    """Divisor n - 1; exactly 0 where all values are equal."""
    variance: np.ndarray = X.var(axis=0, ddof=1, dtype=np.float64)
    variance[(X == X[:1]).all(axis=0)] = 0.0
    return variance


def _trend_axes(
    genes: "pd.DataFrame | dict[str, np.ndarray]", suffix: str, is_log: bool
) -> tuple[np.ndarray, np.ndarray]:
    prefix = "raw_" if is_log else ""
    mean, variance = genes[f"{prefix}mean{suffix}"], genes[f"{prefix}variance{suffix}"]
    return np.asarray(mean), np.asarray(variance)


def _totals(X: np.ndarray) -> np.ndarray:
    return np.concatenate([_linear(X[i : i + 256]).sum(axis=1) for i in range(0, len(X), 256)])


def _linear(X: np.ndarray) -> np.ndarray:
    """Linear levels of log2(1 + x), float64."""
    return np.asarray(np.exp2(X.astype(np.float64)) - 1.0)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two vectors; NaN where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")
