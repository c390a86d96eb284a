"""Observation noise for generating: each gene's variance is to be that of the training rows.

A model's noise is that of rows it was not fitted to. Added to latents that vary as those of the
training rows do, it gives more variance than data have, the more the fewer the rows.
"""

from collections.abc import Callable

import numpy as np
import torch

from m1pipe.encoder import Encoder
from m1pipe.models.likelihoods import Gaussian
from m1pipe.models.mlp import evaluating
from m1pipe.synthesis.sample import CHUNK_ROWS, deal

DRAWS = 2048
FACTORS = (0.3, 1.0)  # of the standard deviation; never more noise than the model has


def noise_factor(encoder: Encoder, draw: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """Factor of each gene's noise that brings its variance to that of the training rows.

    Parameters
    ----------
    encoder : Encoder
    draw : callable
        Latents of samples of given classes, as they will be drawn.

    Returns
    -------
    ndarray of float32, shape (n_genes,), or None
        Within `FACTORS`; None where the law is not normal.
    """
    law = encoder.module.likelihood
    if not isinstance(law, Gaussian):
        return None
    shares, wanted = np.ones(1), encoder.pca.gene_variances.astype(np.float64)
    if encoder.condition is not None:
        shares = np.asarray(encoder.condition.counts, dtype=np.float64)
        wanted = wanted + shares @ encoder.condition.shift.astype(np.float64) ** 2 / shares.sum()
    codes = np.repeat(np.arange(shares.size), deal(DRAWS, shares))
    noise = np.exp(2 * law.log_scale().detach().double().numpy())
    left = np.maximum(wanted - _decoded_variance(encoder, draw(codes), codes), 0)
    factor: np.ndarray = np.clip(np.sqrt(left / noise), *FACTORS)
    return factor.astype(np.float32)


def _decoded_variance(encoder: Encoder, Z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Variance of each gene's decoded mean on the transformed scale, shape (n_genes,)."""
    total, squares = np.zeros(len(encoder.genes)), np.zeros(len(encoder.genes))
    for start in range(0, len(Z), CHUNK_ROWS):
        here = slice(start, start + CHUNK_ROWS)
        told = None if encoder.condition is None else torch.from_numpy(codes[here])
        with evaluating(encoder.module), torch.no_grad():
            eta = encoder.module.decode(torch.from_numpy(Z[here]), told).double().numpy()
        total += eta.sum(axis=0)
        squares += (eta**2).sum(axis=0)
    variance: np.ndarray = squares / len(Z) - (total / len(Z)) ** 2
    return variance
