"""The scale of the latents: each unit is multiplied by the length of its loadings on the genes.

A unit's posterior mean has a variance near 1 whatever it carries, so that noise counts like signal
wherever distances or penalties are taken of latents. Times the length of its loadings, by least
squares of the standardised genes on all units, a unit varies as much as the genes that go with it,
as principal component scores do; one that carries nothing weighs next to nothing.
"""

from collections.abc import Iterable

import numpy as np

FLOOR = 1e-3  # of the largest unit's standard deviation, once scaled
_STILL = 1e-6  # of the largest standard deviation of a unit: it does not vary
_SINGULAR = 1e-6  # of the largest eigenvalue of the units' correlations


def decoder_scale(mu: np.ndarray, blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Length of each unit's loadings on standardised genes.

    The squared length is less what noise alone would give it, so that units that carry nothing
    weigh little also where rows are few. What a unit of the network is multiplied by is divided
    out: unit times scale stays the same.

    Parameters
    ----------
    mu : ndarray, shape (n_samples, n_latent)
        Posterior means, on the network's own scale.
    blocks : iterable of ndarray, each of shape (n_rows, n_genes)
        Standardised levels of the same samples in their order, about their mean or that of their
        class.

    Returns
    -------
    ndarray of float32, shape (n_latent,)
        Positive: a scaled unit's standard deviation is at least `FLOOR` of the largest one's. All
        1 where no unit carries anything.
    """
    Z = mu.astype(np.float64)
    Z -= Z.mean(axis=0)
    n, spread = len(Z), Z.std(axis=0)
    moves = spread > _STILL * spread.max(initial=0.0)
    spread[~moves] = 1.0
    products, squares = _moments((Z / spread).astype(np.float32), blocks)
    inverse, rank = _pseudo_inverse((Z / spread).T @ (Z / spread))
    loadings = inverse @ products
    left = squares - np.einsum("kg,kg->", loadings, products)
    noise = max(left, 0.0) / max(n - 1 - rank, 1) * np.diag(inverse)
    lengths = np.sqrt(np.maximum(np.einsum("kg,kg->k", loadings, loadings) - noise, 0.0))
    lengths[~moves] = 0.0
    if not (np.isfinite(lengths).all() and lengths.max(initial=0.0) > 0):
        return np.ones(mu.shape[1], dtype=np.float32)
    scale: np.ndarray = np.maximum(lengths, FLOOR * lengths.max()) / spread
    return scale.astype(np.float32)


def _moments(Z: np.ndarray, blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, float]:
    """Z'G (n_latent, n_genes), and the squares of G about its mean, summed over all of it."""
    products: np.ndarray | None = None
    total, squares, start = np.zeros(0), 0.0, 0
    for G in blocks:
        if products is None:
            products, total = np.zeros((Z.shape[1], G.shape[1])), np.zeros(G.shape[1])
        products += Z[start : start + len(G)].T @ G
        total += G.sum(axis=0, dtype=np.float64)
        squares += float(np.einsum("ij,ij->", G, G, dtype=np.float64))
        start += len(G)
    if products is None or start != len(Z):
        raise ValueError(f"expected levels of {len(Z)} samples; found {start}")
    return products, squares - float(total @ total) / len(Z)


def _pseudo_inverse(symmetric: np.ndarray) -> tuple[np.ndarray, int]:
    """Pseudo-inverse of a positive semidefinite matrix, and its rank."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > _SINGULAR * max(values[-1], 0.0)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return inverse, int(kept.sum())
