"""Rival generators: what a synthetic sample has to beat. Each is (train, n, seed) to samples."""

import warnings

import numpy as np
from scipy import stats
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from m1pipe import seeds
from m1pipe.models.pca import fit_pca

N_FACTORS = 20
N_CLUSTERS = (1, 2, 3, 5, 8, 12)
_BLOCK = 256


def gaussian_copula(train: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Samples with the marginals of `train` and the correlations of its normal scores.

    The correlation matrix is never formed: a normal draw in the space of the rows has it.

    Parameters
    ----------
    train : ndarray, shape (n_samples, n_genes)
    n : int
        Samples wanted.
    seed : int

    Returns
    -------
    ndarray of float32, shape (n, n_genes)
    """
    rng = seeds.rng(seed, seeds.GAUSSIAN_COPULA)
    Z = normal_scores(train)
    draw = rng.standard_normal((n, len(Z)), dtype=np.float32) / np.sqrt(np.float32(len(Z) - 1))
    return from_normal_scores(draw @ Z, train)


def factor_analysis(train: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Normal samples with low-rank plus diagonal covariance, on the scale of `train`.

    Parameters and result, shape (n, n_genes), are those of `gaussian_copula`; values are not
    negative where those of `train` are not.
    """
    rng = seeds.rng(seed, seeds.FACTOR_ANALYSIS)
    k = _rank(train)
    mean, sd = train.mean(axis=0), train.std(axis=0)
    sd = np.where(sd > 0, sd, 1).astype(np.float32)
    model = FactorAnalysis(k, max_iter=100, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((train - mean) / sd)
    factors = rng.standard_normal((n, k)) @ model.components_
    noise = rng.standard_normal(factors.shape) * np.sqrt(np.maximum(model.noise_variance_, 0))
    samples: np.ndarray = (mean + sd * (factors + noise)).astype(np.float32)
    return np.maximum(samples, 0) if train.min() >= 0 else samples


def pca_mixture(train: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Mixture of normals on principal components of normal scores, plus each gene's residual.

    The number of clusters and the kind of covariance are chosen by BIC. Parameters and result,
    shape (n, n_genes), are those of `gaussian_copula`.
    """
    rng = seeds.rng(seed, seeds.PCA_MIXTURE)
    Z = normal_scores(train)
    pca = fit_pca(lambda: [Z], _rank(train), seed=seed)
    mixture = _best_mixture(pca.scores(Z).astype(np.float64), seed)
    latents, _ = mixture.sample(n)
    samples = pca.reconstruct(latents[rng.permutation(n)])
    noise = rng.standard_normal(samples.shape, dtype=np.float32)
    return from_normal_scores(samples + noise * np.sqrt(pca.residual_variances), train)


RIVALS = {
    "gaussian copula": gaussian_copula,
    "factor analysis": factor_analysis,
    "PCA + mixture": pca_mixture,
}


def normal_scores(X: np.ndarray) -> np.ndarray:
    """Every gene as normal scores of its ranks: mean 0, variance 1 (0 where it is constant).

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
    """
    Z = np.empty(X.shape, dtype=np.float32)
    for start in range(0, X.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        z = stats.norm.ppf((stats.rankdata(X[:, columns], axis=0) - 0.5) / len(X))
        z -= z.mean(axis=0)
        sd = z.std(axis=0, ddof=1)
        Z[:, columns] = z / np.where(sd > 1e-9, sd, 1)
    return Z


def from_normal_scores(Z: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Levels whose place in their gene's distribution in X is the normal probability of Z.

    Parameters
    ----------
    Z : ndarray, shape (n, n_genes)
    X : ndarray, shape (n_samples, n_genes)

    Returns
    -------
    ndarray of float32, shape (n, n_genes)
        Within the range of X.
    """
    places = (np.arange(len(X)) + 0.5) / len(X)
    out = np.empty(Z.shape, dtype=np.float32)
    for start in range(0, X.shape[1], _BLOCK):
        columns = range(start, min(start + _BLOCK, X.shape[1]))
        known = np.sort(X[:, columns.start : columns.stop], axis=0)
        wanted = stats.norm.cdf(Z[:, columns.start : columns.stop])
        for j in columns:
            out[:, j] = np.interp(wanted[:, j - start], places, known[:, j - start])
    return out


def _rank(train: np.ndarray) -> int:
    """Factors: N_FACTORS, fewer for small sets."""
    return int(max(1, min(N_FACTORS, len(train) // 5, train.shape[1] // 2)))


def _best_mixture(scores: np.ndarray, seed: int) -> GaussianMixture:
    """Mixture with the lowest BIC."""
    models = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in N_CLUSTERS:
            if len(scores) < 5 * k:
                break
            models += [
                GaussianMixture(k, covariance_type=kind, reg_covar=1e-4, random_state=seed).fit(
                    scores
                )
                for kind in ("full", "diag")
            ]
    return min(models, key=lambda model: model.bic(scores))
