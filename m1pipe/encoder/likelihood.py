"""Log-likelihood of samples under an encoder: importance-weighted bounds (IWAE)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from m1pipe.console import over_rows
from m1pipe.data.recipe import MIN_COVERAGE
from m1pipe.encoder.missing import impute_array
from m1pipe.encoder.trained import CHUNK_ROWS, Encoder
from m1pipe.models.mlp import evaluating
from m1pipe.models.vae import VAEModule, known_only

DRAWS = 64


def iwae_bound(
    module: VAEModule,
    x: torch.Tensor,
    noise: torch.Tensor,
    codes: torch.Tensor | None = None,
    *,
    known: torch.Tensor | None = None,
    log_prob: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Log of the mean over draws of p(x, z) / q(z | x).

    Parameters
    ----------
    module : VAEModule
        Used in the mode it is in.
    x : Tensor, shape (n_samples, n_genes)
        Levels after the per-gene transform.
    noise : Tensor, shape (n_draws, 1 or n_samples, n_latent)
        Standard normal.
    codes : Tensor of int, shape (n_samples,), optional
        Class of each sample, for a conditional model.
    known : Tensor of bool, shape (n_samples, n_genes), optional
        Levels that are not missing; the bound is that of these. Left out: all.
    log_prob : callable, optional
        The decoder's output to log-probabilities, shape (n_samples, n_genes). Left out: the
        likelihood's, of x.

    Returns
    -------
    Tensor, shape (n_samples,)
        In nats; the more draws, the nearer to log p(x) from below.

    References
    ----------
    Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519, equation 8; with missing levels Mattei &
    Frellsen 2019, arXiv:1812.02633, equation 4.
    """
    mu, logvar = module.encode(x, codes)
    library, weights = module.library(x), []
    for eps in noise:
        z = mu + eps * (0.5 * logvar).exp()
        eta = module.decode(z, codes, library)
        log_levels = module.likelihood.log_prob(x, eta) if log_prob is None else log_prob(eta)
        log_x = known_only(log_levels, known).sum(dim=1)
        log_ratio = 0.5 * (eps.square() - z.square() + logvar).sum(dim=1)
        weights.append(log_x + log_ratio)
    return torch.stack(weights).logsumexp(dim=0) - float(np.log(len(noise)))


def log_likelihood(
    encoder: Encoder,
    data: Any,
    *,
    rows: np.ndarray | None = None,
    draws: int = DRAWS,
    min_coverage: float = MIN_COVERAGE,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower bound of each sample's log-likelihood, all with the same noise, and its levels.

    Missing levels, and those of genes that the file lacks, are imputed for the posterior that is
    drawn from, which makes the bound tight, and have no part in the likelihood.

    Parameters
    ----------
    encoder : Encoder
    data, min_coverage
        As for `Encoder.align`.
    rows : ndarray of int, shape (n_samples,), optional
        Samples wanted. Left out: all.
    draws : int
        Of the posterior.

    Returns
    -------
    nats : ndarray of float64, shape (n_samples,)
        As a density of the training data's units (for a likelihood of counts a probability).
    n_known : ndarray of int64, shape (n_samples,)
        Levels that the likelihood is of.
    """
    encoder.refuse_centred("score")
    aligned = encoder.align(data, min_coverage=min_coverage, keep_missing=True, keep_lacking=True)
    rows = np.arange(aligned.shape[0]) if rows is None else rows
    codes = encoder.codes(aligned.matrix, rows)
    generator = torch.Generator().manual_seed(encoder.config.training.seed)
    noise = torch.randn((draws, 1, encoder.n_latent), generator=generator)
    found, n_known = np.empty(rows.size), np.empty(rows.size, dtype=np.int64)
    spans = ((start, start + CHUNK_ROWS) for start in range(0, rows.size, CHUNK_ROWS))
    for start, stop in over_rows(spans, rows.size):
        here = slice(start, stop)
        X = aligned.take(rows[here])
        known, place = ~np.isnan(X), None if codes is None else codes[here]
        X = X if known.all() else impute_array(encoder, X, place)
        classes = None if place is None else torch.from_numpy(place)
        with evaluating(encoder.module), torch.no_grad():
            x = torch.from_numpy(encoder.scaler.apply(X))
            mask = None if known.all() else torch.from_numpy(known)
            bound = iwae_bound(encoder.module, x, noise, classes, known=mask)
        slope = np.where(known, encoder.scaler.log_slope(X), 0).sum(axis=1)
        found[here], n_known[here] = bound.double().numpy() + slope, known.sum(axis=1)
    return found, n_known
