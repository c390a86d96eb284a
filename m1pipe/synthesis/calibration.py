"""Generated levels vary gene by gene as the training rows do: their noise, then their places.

A model's noise is that of rows it was not fitted to. Added to latents that vary as those of the
training rows do, it gives more variance than data have, the more the fewer the rows. And draws of
a model are not quite normal where its normal scores are: a level is that at the place of a draw
among the model's own draws, not in N(0, 1).
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from m1pipe.data.normal_scores import fit_levels
from m1pipe.encoder import Encoder
from m1pipe.models.likelihoods import Gaussian
from m1pipe.models.mlp import evaluating
from m1pipe.synthesis.sample import CHUNK_ROWS, deal, decode_samples, draw_scaled

DRAWS = 2048
PLACED = 4096  # draws that a place is among
Draw = Callable[[np.ndarray], np.ndarray]
FACTORS = (0.3, 1.0)  # of the standard deviation; never more noise than the model has


def calibrated_samples(
    encoder: Encoder, Z: np.ndarray, codes: np.ndarray, draw: Draw, *, noise: bool, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Levels of latents that vary as those of the training rows do, a block at a time.

    Parameters
    ----------
    encoder : Encoder
    Z : ndarray, shape (n_samples, n_latent)
    codes, noise, seed
        As for `decode_samples`.
    draw : callable
        More latents, of samples of given classes, from the law that Z is drawn from.

    Returns
    -------
    iterator of (int, ndarray)
        As of `decode_samples`; without noise the expected levels, as they are.
    """
    if not noise:
        return decode_samples(encoder, Z, codes, noise=False, seed=seed)
    factor = noise_factor(encoder, draw)
    own = own_quantiles(encoder, draw, factor, seed=seed + 1)
    return decode_samples(encoder, Z, codes, noise=True, seed=seed, factor=factor, own=own)


def noise_factor(encoder: Encoder, draw: Draw) -> np.ndarray | None:
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


def own_quantiles(
    encoder: Encoder, draw: Draw, factor: np.ndarray | None, *, seed: int
) -> np.ndarray | None:
    """Quantiles of each gene's draws, with the classes in their shares of the training rows.

    Parameters
    ----------
    encoder : Encoder
    draw : callable
        Latents of samples of given classes, as they will be drawn.
    factor : ndarray of float32, shape (n_genes,), or None
        From `noise_factor`.
    seed : int
        Of the noise.

    Returns
    -------
    ndarray of float32, shape (n_knots, n_genes), or None
        On the transformed scale; None where the model has no normal scores.
    """
    if encoder.scaler.levels is None:
        return None
    shares = np.ones(1)
    if encoder.condition is not None:
        shares = np.asarray(encoder.condition.counts, dtype=np.float64)
    codes = np.repeat(np.arange(shares.size), deal(PLACED, shares))
    blocks = draw_scaled(encoder, draw(codes), codes, noise=True, seed=seed, factor=factor)
    return fit_levels(np.concatenate([X for _, X in blocks]))


def _decoded_variance(encoder: Encoder, Z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Variance of each gene's decoded mean on the transformed scale, shape (n_genes,)."""
    total, squares = np.zeros(len(encoder.genes)), np.zeros(len(encoder.genes))
    for start in range(0, len(Z), CHUNK_ROWS):
        here = slice(start, start + CHUNK_ROWS)
        told = None if encoder.condition is None else torch.from_numpy(codes[here])
        with evaluating(encoder.module), torch.no_grad():
            z = torch.from_numpy(encoder.unit_latents(Z[here]))
            eta = encoder.module.decode(z, told).double().numpy()
        total += eta.sum(axis=0)
        squares += (eta**2).sum(axis=0)
    variance: np.ndarray = squares / len(Z) - (total / len(Z)) ** 2
    return variance
