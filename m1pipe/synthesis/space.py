"""Where samples are compared: standardised genes, some of them, and principal components."""

from dataclasses import dataclass

import numpy as np

from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.pca import PCA, fit_pca
from m1pipe.synthesis.config import QualityConfig

_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Space:
    """Fitted to the real training samples once, for all that is compared.

    Attributes
    ----------
    genes : ndarray of int, shape (n_drawn,)
        Genes drawn for whatever is quadratic in genes, ascending.
    transform : GeneTransform
        Standardises all genes.
    pca : PCA
        Of the standardised genes.
    """

    genes: np.ndarray
    transform: GeneTransform
    pca: PCA

    def standardised(self, X: np.ndarray) -> np.ndarray:
        """The drawn genes, standardised, float32, shape (n_samples, n_drawn)."""
        location, scale = self.transform.location[self.genes], self.transform.scale[self.genes]
        out: np.ndarray = ((X[:, self.genes] - location) / scale).astype(np.float32)
        return out

    def components(self, X: np.ndarray) -> np.ndarray:
        """Principal component scores, float32, shape (n_samples, n_components)."""
        parts = [
            self.pca.scores(self.transform.apply(X[start : start + _BLOCK]))
            for start in range(0, len(X), _BLOCK)
        ]
        return np.concatenate(parts)

    def shuffled_components(self, X: np.ndarray, seed: int) -> np.ndarray:
        """Scores of X with every gene shuffled on its own, a block of genes at a time.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_genes)
        seed : int

        Returns
        -------
        ndarray of float64, shape (n_samples, n_components)
        """
        rng = np.random.default_rng([seed, 8])
        weights = self.pca.components / self.transform.scale
        offset = (self.transform.location / self.transform.scale + self.pca.mean) @ (
            self.pca.components.T
        )
        scores = np.zeros((len(X), len(self.pca.components)), dtype=np.float64)
        for start in range(0, X.shape[1], _BLOCK):
            part = rng.permuted(X[:, start : start + _BLOCK], axis=0)
            scores += part @ weights[:, start : start + _BLOCK].T
        found: np.ndarray = (scores - offset).astype(np.float32)
        return found


def fit_space(X: np.ndarray, config: QualityConfig) -> Space:
    """Draw genes; fit the transform and the components.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
        Real training samples.
    config : QualityConfig
    """
    rng = np.random.default_rng([config.seed, 9])
    genes = np.sort(rng.permutation(X.shape[1])[: config.max_genes])

    def blocks() -> list[np.ndarray]:
        return [X[start : start + _BLOCK] for start in range(0, len(X), _BLOCK)]

    transform = fit_gene_transform("standardize", blocks())
    pca = fit_pca(lambda: (transform.apply(block) for block in blocks()), config.n_components)
    return Space(genes, transform, pca)
