"""Dependence fidelity: how genes go together, synthetic samples against held-out ones."""

from functools import partial

import numpy as np
from scipy import linalg

from m1pipe.synthesis.scores import CORRELATION, POSITIVE, Definition, Values

_BLOCK = 1024
_definition = partial(Definition, "dependence")
DEPENDENCE = (
    _definition(
        "gamma",
        "gamma",
        "higher",
        "agreement of all gene-gene correlations; blind to variance collapse",
        CORRELATION,
    ),
    _definition(
        "correlation_rmse",
        "correlation RMSE",
        "lower",
        "typical error of one gene-gene correlation",
        POSITIVE,
    ),
    _definition(
        "frobenius",
        "relative Frobenius",
        "lower",
        "error of the whole correlation matrix over its size",
        POSITIVE,
    ),
    _definition(
        "correlation_similarity",
        "correlation similarity",
        "higher",
        "as SDMetrics has it, for comparison only: it hardly tells good from bad",
        CORRELATION,
    ),
)
FRECHET = (
    _definition(
        "frechet",
        "Frechet distance",
        "lower",
        "means and covariances in principal components of the real samples",
        POSITIVE,
    ),
)


def correlation_scores(H: np.ndarray, A: np.ndarray, block: int = _BLOCK) -> Values:
    """Scores of the gene-gene correlations, never holding more than two blocks of a matrix.

    Genes that are constant in either set are left out.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_genes)
        Hold-out, and the samples to be scored.
    block : int
        Genes a block.

    Returns
    -------
    mapping of every name in `DEPENDENCE` to a float

    Raises
    ------
    ValueError
        If fewer than three genes vary in both sets.

    References
    ----------
    gamma: Vinas et al. 2022, Bioinformatics 38:730.
    """
    varies = (H != H[:1]).any(axis=0) & (A != A[:1]).any(axis=0)
    if varies.sum() < 3:
        raise ValueError(
            f"{int(varies.sum())} of {varies.size} genes vary in both sets: no correlations"
        )
    h, a = unit_columns(H[:, varies]), unit_columns(A[:, varies])
    sums = np.zeros(7)
    p = h.shape[1]
    for i in range(0, p, block):
        for j in range(i, p, block):
            c_h = h[:, i : i + block].T @ h[:, j : j + block]
            c_a = a[:, i : i + block].T @ a[:, j : j + block]
            pairs = np.triu_indices(len(c_h), 1, c_h.shape[1]) if i == j else ...
            sums += _pair_sums(c_h[pairs], c_a[pairs])
    n, s_h, s_a, s_hh, s_aa, s_ha, s_abs = sums
    covariance = s_ha / n - s_h * s_a / n**2
    spread = np.sqrt((s_hh / n - (s_h / n) ** 2) * (s_aa / n - (s_a / n) ** 2))
    squares = max(s_hh + s_aa - 2 * s_ha, 0.0)
    return {
        "gamma": float(covariance / spread) if spread > 0 else float("nan"),
        "correlation_rmse": float(np.sqrt(squares / n)),
        "frobenius": float(np.sqrt(2 * squares / (p + 2 * s_hh))),
        "correlation_similarity": float(1 - s_abs / n / 2),
    }


def unit_columns(X: np.ndarray) -> np.ndarray:
    """Columns centred and scaled to length 1, float32: their products are correlations.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
        No column constant.
    """
    centred = X - X.mean(axis=0, dtype=np.float64).astype(X.dtype)
    lengths = np.sqrt(np.einsum("ij,ij->j", centred, centred, dtype=np.float64))
    return np.asarray((centred / lengths).astype(np.float32))


def _pair_sums(h: np.ndarray, a: np.ndarray) -> np.ndarray:
    h, a = h.ravel().astype(np.float64), a.ravel().astype(np.float64)
    return np.array([h.size, h.sum(), a.sum(), h @ h, a @ a, h @ a, np.abs(h - a).sum()])


def frechet_score(H: np.ndarray, A: np.ndarray) -> Values:
    """Squared Frechet distance of the normal distributions with the sets' means and covariances.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_components)

    Returns
    -------
    mapping with "frechet"
        ||mu_H - mu_A||^2 + tr(C_H + C_A - 2 (C_H C_A)^(1/2)), >= 0 up to rounding.

    References
    ----------
    Dowson & Landau 1982, J. Multivariate Analysis 12:450.
    """
    h, a = H.astype(np.float64), A.astype(np.float64)
    gap = h.mean(axis=0) - a.mean(axis=0)
    c_h, c_a = np.atleast_2d(np.cov(h.T)), np.atleast_2d(np.cov(a.T))
    values, vectors = linalg.eigh(c_h)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(linalg.eigvalsh(root @ c_a @ root), 0)).sum()
    return {"frechet": float(gap @ gap + np.trace(c_h) + np.trace(c_a) - 2 * cross)}
