"""Principal components of rows that come in blocks, with which every encoder is compared.

Small problems are solved exactly. Large ones by block Krylov iteration, which reads the rows a
fixed number of times and holds a few hundred vectors, so that neither the rows nor a gene by gene
matrix need fit in memory. The same rows, blocks and seed give the same bits on one machine.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from m1pipe.artefacts import hold_in_rows
from m1pipe.errors import InputError

EXACT_FLOP = 4e11
KRYLOV_STEPS = 4
OVERSAMPLING = 10
_NEGLIGIBLE = 1e-9
_COLUMNS = 4096

Blocks = Callable[[], Iterable[np.ndarray]]


@dataclass(frozen=True, eq=False)
class PCA:
    """Leading principal components, on the scale of the rows they were fitted to.

    Attributes
    ----------
    mean : ndarray of float32, shape (n_genes,)
        Of the fitted rows.
    components : ndarray of float32, shape (n_components, n_genes)
        Orthonormal rows, by falling variance; the largest entry of each is positive.
    variances : ndarray of float32, shape (n_components,)
        Variance (divisor n) of the fitted rows along each component.
    gene_variances : ndarray of float32, shape (n_genes,)
        Variance (divisor n) of each gene.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    gene_variances: np.ndarray

    def __post_init__(self) -> None:
        hold_in_rows(self)

    @property
    def residual_variances(self) -> np.ndarray:
        """Variance of each gene that the components leave, float32, shape (n_genes,)."""
        carried = self.variances.astype(np.float64) @ self.components.astype(np.float64) ** 2
        left: np.ndarray = np.maximum(self.gene_variances - carried, 0.0)
        return left.astype(np.float32)

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Coordinates of rows along the components.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_genes)

        Returns
        -------
        ndarray of float32, shape (n_samples, n_components)
        """
        centred = np.subtract(X, self.mean, dtype=np.float32, order="C")
        return centred @ self.components.T

    def reconstruct(self, scores: np.ndarray) -> np.ndarray:
        """Rows that the scores stand for.

        Parameters
        ----------
        scores : ndarray, shape (n_samples, n_components)

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
        """
        rows: np.ndarray = scores.astype(np.float32) @ self.components
        rows += self.mean
        return rows

    def residuals(self, X: np.ndarray) -> np.ndarray:
        """What the components leave of rows, shape (n_samples, n_genes)."""
        return X - self.reconstruct(self.scores(X))


def fit_pca(
    blocks: Blocks, n_components: int, *, seed: int = 0, exact_flop: float = EXACT_FLOP
) -> PCA:
    """Fit principal components.

    Parameters
    ----------
    blocks : callable
        Every call gives the same rows anew, as an iterable of arrays of shape (n_rows, n_genes).
    n_components : int
        At most this many; fewer where the rows span fewer.
    seed : int
        Of the start of the Krylov iteration.
    exact_flop : float
        Solve exactly up to this many floating-point operations.

    Returns
    -------
    PCA

    Raises
    ------
    InputError
        If there is not a single row.
    """
    n, mean, gene_variances = _moments(blocks)
    width = min(n, mean.size)
    if n * mean.size * width <= exact_flop:
        variances, components = _exact(blocks, n, mean, n_components)
    else:
        variances, components = _krylov(blocks, n, mean, n_components, seed)
    kept = variances > _NEGLIGIBLE * max(gene_variances.sum(), np.finfo(np.float32).tiny)
    kept[min(n - 1, n_components) :] = False
    return PCA(
        mean=mean.astype(np.float32),
        components=_signed(components[kept]).astype(np.float32),
        variances=variances[kept].astype(np.float32),
        gene_variances=gene_variances.astype(np.float32),
    )


def _moments(blocks: Blocks) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of rows, mean and variance per gene, in float64 about the first block's mean."""
    n = 0
    about, total, squares = np.zeros(0), np.zeros(0), np.zeros(0)
    for block in blocks():
        if n == 0 and block.shape[0]:
            about = block.mean(axis=0, dtype=np.float64)
            total, squares = np.zeros_like(about), np.zeros_like(about)
        if block.shape[0]:
            deviations = block - about
            total += deviations.sum(axis=0)
            squares += np.einsum("ij,ij->j", deviations, deviations)
        n += block.shape[0]
    if n == 0:
        raise InputError("PCA: expected at least one training row; found none")
    shift = total / n
    return n, about + shift, np.maximum(squares / n - shift**2, 0.0)


def _exact(blocks: Blocks, n: int, mean: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading variances (k,) and components (k, p) from whichever square matrix is smaller."""
    p = mean.size
    if n < p:
        rows = np.concatenate([(block - mean).astype(np.float32) for block in blocks()])
        products = np.zeros((n, n))
        for start in range(0, p, _COLUMNS):
            part = rows[:, start : start + _COLUMNS].astype(np.float64)
            products += part @ part.T
        variances, vectors = _leading(products / n, min(k, n))
        components = vectors.astype(np.float32) @ rows
        lengths = np.linalg.norm(components, axis=1, keepdims=True).astype(np.float64)
        return variances, components / np.maximum(lengths, np.finfo(np.float64).tiny)
    covariance = np.zeros((p, p))
    for block in blocks():
        deviations = block - mean
        covariance += deviations.T @ deviations
    return _leading(covariance / n, min(k, p))


def _leading(symmetric: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues (k,), falling, and their vectors as rows (k, size)."""
    size = symmetric.shape[0]
    values, vectors = linalg.eigh(symmetric, subset_by_index=(size - k, size - 1))
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1].T


def _krylov(
    blocks: Blocks, n: int, mean: np.ndarray, k: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Leading variances and components by block Krylov iteration and a Rayleigh-Ritz step.

    References
    ----------
    Musco & Musco 2015, arXiv:1504.05477, algorithm 2.
    """
    width = min(k + OVERSAMPLING, n, mean.size)
    centre = mean.astype(np.float32)
    step = np.random.default_rng(seed).standard_normal((mean.size, width), dtype=np.float32)
    basis = []
    for _ in range(KRYLOV_STEPS):
        step, _ = np.linalg.qr(_covariance_times(blocks, centre, step))
        basis.append(step)
    space, _ = np.linalg.qr(np.hstack(basis))
    small = np.zeros((space.shape[1], space.shape[1]))
    for block in blocks():
        projected = (block - centre) @ space
        small += projected.T @ projected
    variances, vectors = _leading(small / n, min(k, small.shape[0]))
    return variances, vectors @ space.T


def _covariance_times(blocks: Blocks, centre: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Sum over rows x of (x - centre) (x - centre)' vectors, accumulated in float64."""
    product = np.zeros(vectors.shape)
    for block in blocks():
        deviations = block - centre
        product += deviations.T @ (deviations @ vectors)
    return product.astype(np.float32)


def _signed(components: np.ndarray) -> np.ndarray:
    """Components turned so that the largest entry of each is positive."""
    if components.shape[0] == 0:
        return components
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(components.shape[0]), largest])
    return components * signs[:, None]
