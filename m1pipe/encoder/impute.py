"""Missing levels from the others of the same sample."""

import numpy as np
import torch

from m1pipe.encoder.summary import gene_scale
from m1pipe.encoder.trained import Encoder
from m1pipe.models.mlp import evaluating
from m1pipe.models.vae import known_only

MOST_ROUNDS = 100
TOLERANCE = 1e-3  # of a gene's standard deviation
SLACK = 0.1  # nats a sample


def impute_array(encoder: Encoder, X: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
    """Rows whose missing levels are expected ones, given those that are there.

    They begin at the training means; sample after sample is encoded and decoded, and what is
    missing replaced by what comes out, until that stays the same, or the latents become less
    probable given the levels that are there: so it ends where an encoder that was trained on
    levels at their means is not at home. Where decoder and encoder are linear, latents become
    ever more probable, and the fixed point is the mean of the missing levels given the others.

    Parameters
    ----------
    encoder : Encoder
    X : ndarray, shape (n_samples, n_genes)
        The encoder's genes in the units of training; NaN where a level is missing.
    codes : ndarray of int64, shape (n_samples,), optional
        Class of each row, for a conditional model.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
        Without NaN; levels that were there are unchanged.

    References
    ----------
    Rezende, Mohamed & Wierstra 2014, arXiv:1401.4082, section 6.1 (by draws; here by means).
    """
    missing = np.isnan(X)
    filled = np.where(missing, encoder.recipe.gene_means, X).astype(np.float32)
    open_rows = np.flatnonzero(missing.any(axis=1))
    best = np.full(open_rows.size, -np.inf)
    for _ in range(MOST_ROUNDS):
        if not open_rows.size:
            break
        told = None if codes is None else codes[open_rows]
        after, moved, nats = _round(encoder, filled[open_rows], missing[open_rows], told)
        good = nats >= best - SLACK
        filled[open_rows[good]] = after[good]
        goes_on = good & (moved > TOLERANCE)
        open_rows, best = open_rows[goes_on], np.maximum(best, nats)[goes_on]
    return filled


def _round(
    encoder: Encoder, before: np.ndarray, missing: np.ndarray, codes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows filled anew, how far the farthest level moved, log p(known, z) but for a constant."""
    module, scaler = encoder.module, encoder.scaler
    x, known = torch.from_numpy(scaler.apply(before)), torch.from_numpy(~missing)
    told = None if codes is None else torch.from_numpy(codes)
    with evaluating(module), torch.no_grad():
        z = module.encode_mu(x, told)
        eta = module.decode(z, told, module.library(x))
        nats = known_only(module.likelihood.log_prob(x, eta), known).sum(1)
        if module.config.beta > 0:
            nats = nats - 0.5 * z.square().sum(1)
        fitted = scaler.invert(module.likelihood.mean(eta).numpy())
    after = np.where(missing, fitted, before)
    change = np.abs(encoder.inputs(after, codes) - encoder.inputs(before, codes))
    return after, (change / gene_scale(scaler, encoder.pca)).max(axis=1), nats.numpy()
