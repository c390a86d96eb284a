"""Synthetic samples: latents decoded, levels drawn from the likelihood and calibrated.

Generated levels vary gene by gene as the training rows do. A model's noise is that of rows it was
not fitted to: added to latents that vary as those of the training rows do, it gives more variance
than data have, the more the fewer the rows. And draws of a model are not quite normal where its
normal scores are: a level is that at the place of a draw among the model's own draws, not in
N(0, 1).
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from m1pipe.data.normal_scores import fit_levels
from m1pipe.data.units import Units, to_linear
from m1pipe.encoder import Encoder
from m1pipe.errors import InputError
from m1pipe.models.count_likelihoods import COUNT_LIKELIHOODS
from m1pipe.models.likelihoods import Gaussian
from m1pipe.models.mlp import evaluating
from m1pipe.predictor import ENDS_AT_ZERO

CHUNK_ROWS = 1024
_ABOUT_ZERO = -1e-5  # what scaling there and back may leave of a zero
_QUANTILES = (0.05, 0.5, 0.95)
TOTALS = ("total_q05", "total_median", "total_q95")
DRAWS = 2048  # behind the factor of a gene's noise
DRAWS_FOR_QUANTILES = 4096
NOISE_FACTORS = (0.3, 1.0)  # least and most; never more noise than the model has
DrawLatents = Callable[[np.ndarray], np.ndarray]  # classes of samples to their latents


def allot(encoder: Encoder, n: int | None, wanted: Mapping[str, int] | None) -> np.ndarray:
    """Classes of the samples to be made.

    Parameters
    ----------
    encoder : Encoder
    n : int or None
        Samples in all; of a conditional model dealt to the classes by their shares of the
        training rows, unless `wanted` says how many.
    wanted : mapping of str to int, or None
        Class to number of samples.

    Returns
    -------
    ndarray of int64, shape (n_samples,)
        Ascending; 0 where the model is not conditional.

    Raises
    ------
    InputError
        If the model is not conditional, a class was not trained on, or the numbers do not fit.
    """
    condition = encoder.condition
    if not wanted:
        if n is None or n < 1:
            raise InputError(f"n: expected a number of samples, at least 1; found {n}")
        shares = _class_shares(encoder)
        return np.repeat(np.arange(shares.size), deal(n, shares))
    if condition is None:
        raise InputError(
            f"condition: expected a conditional model; found one that is not: train one with "
            f"--condition, or leave out {', '.join(wanted)}"
        )
    codes = {condition.code(name): number for name, number in wanted.items()}
    total = sum(codes.values())
    if min(codes.values()) < 1 or (n is not None and n != total):
        raise InputError(
            f"condition: expected at least 1 sample a class and {n or 'any number'} in all; found "
            f"{', '.join(f'{name}:{number}' for name, number in wanted.items())}"
        )
    return np.repeat(sorted(codes), [codes[k] for k in sorted(codes)])


def deal(n: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to shares, by largest remainder.

    Parameters
    ----------
    n : int
    shares : ndarray, shape (n_parts,)
        Of any sum.

    Returns
    -------
    ndarray of int64, shape (n_parts,)
        Their sum is n.
    """
    exact = n * shares / shares.sum()
    dealt: np.ndarray = np.floor(exact).astype(np.int64)
    dealt[np.argsort(dealt - exact, kind="stable")[: n - dealt.sum()]] += 1
    return dealt


def decode_samples(
    encoder: Encoder,
    Z: np.ndarray,
    codes: np.ndarray,
    *,
    noise: bool,
    seed: int,
    factor: np.ndarray | None = None,
    own: np.ndarray | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Levels of latents, a block at a time, always by the network in evaluation mode.

    Parameters
    ----------
    encoder : Encoder
    Z : ndarray of float32, shape (n_samples, n_latent)
        With one column more, the log of the total count, in a model of counts.
    codes : ndarray of int64, shape (n_samples,)
        Classes; ignored where the model is not conditional.
    noise : bool
        Draw from the likelihood; otherwise its mean.
    seed : int
        Of the noise.
    factor : ndarray of float32, shape (n_genes,), optional
        Of each gene's noise, from `noise_factor`.
    own : ndarray of float32, shape (n_knots, n_genes), optional
        Quantiles of each gene's draws, from `own_quantiles`.

    Yields
    ------
    start : int
    X : ndarray of float32, shape (n_block, n_genes)
        In the units of training; not negative where the training data were not.
    """
    ends = ends_at_zero(encoder)
    drawn = draw_scaled(encoder, Z, codes, noise=noise, seed=seed, factor=factor)
    for start, scaled in drawn:
        scaler = encoder.scaler
        X = scaler.invert_draws(scaled, own) if noise else scaler.invert(scaled)
        yield start, np.maximum(X, 0, out=X) if ends else X


def draw_scaled(
    encoder: Encoder,
    Z: np.ndarray,
    codes: np.ndarray,
    *,
    noise: bool,
    seed: int,
    factor: np.ndarray | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """What `decode_samples` yields, on the scale after the per-gene transform.

    Parameters
    ----------
    encoder, Z, codes, noise, seed, factor
        As for `decode_samples`.

    Yields
    ------
    start : int
    X : ndarray of float32, shape (n_block, n_genes)
    """
    generator = torch.Generator().manual_seed(seed)
    module, likelihood = encoder.module, encoder.module.likelihood
    for start in range(0, len(Z), CHUNK_ROWS):
        here = slice(start, start + CHUNK_ROWS)
        told = None if encoder.condition is None else torch.from_numpy(codes[here])
        z = torch.from_numpy(encoder.unit_latents(Z[here, : encoder.n_latent]))
        library = None
        if module.of_counts:
            library = torch.exp(torch.from_numpy(Z[here, encoder.n_latent :]))
        with evaluating(module), torch.no_grad():
            eta = module.decode(z, told, library)
            if noise and library is not None and isinstance(likelihood, COUNT_LIKELIHOODS):
                values = likelihood.sample_given_total(eta, library, generator)
            else:
                values = likelihood.sample(eta, generator) if noise else likelihood.mean(eta)
            drawn = values.numpy()
            if noise and factor is not None:
                mean = likelihood.mean(eta).numpy()
                drawn = mean + factor * (drawn - mean)
        yield start, drawn


def ends_at_zero(encoder: Encoder) -> bool:
    """Whether generated levels are to be at least 0, as the training data were."""
    if encoder.units.name in ENDS_AT_ZERO:
        return True
    lowest = encoder.summary.get("lowest")
    return lowest is not None and lowest > _ABOUT_ZERO


def totals(X: np.ndarray, units: Units) -> np.ndarray:
    """Total of each sample on the linear scale, float64; empty where sums mean nothing.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
    units : Units
    """
    if units.is_linear:
        return np.asarray(X.sum(axis=1, dtype=np.float64))
    if units.is_log and units.name != "log_fold_change":
        return np.asarray(to_linear(X.astype(np.float64), units).sum(axis=1))
    return np.empty(0)


def closure(found: np.ndarray, units: Units) -> dict[str, float]:
    """How near the totals of samples come to what they should sum to.

    Parameters
    ----------
    found : ndarray, shape (n_samples,)
        From `totals`.
    units : Units

    Returns
    -------
    dict of str to float
        5 %, 50 % and 95 % quantiles, and the target sum where one is known; empty where sums
        mean nothing. Some of the genes alone do not close, real samples' neither.
    """
    if not found.size:
        return {}
    facts = dict(zip(TOTALS, map(float, np.quantile(found, _QUANTILES)), strict=True))
    return facts if units.target_sum is None else {**facts, "target_sum": units.target_sum}


def calibrated_samples(
    encoder: Encoder, codes: np.ndarray, draw: DrawLatents, *, noise: bool, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Draw samples whose levels vary as those of the training rows do, a block at a time.

    Parameters
    ----------
    encoder : Encoder
    codes, noise, seed
        As for `decode_samples`.
    draw : callable
        Latents of samples of given classes; called once for the samples, then for calibration.

    Returns
    -------
    iterator of (int, ndarray)
        As of `decode_samples`; without noise the expected levels, as they are.
    """
    Z = draw(codes)
    if not noise:
        return decode_samples(encoder, Z, codes, noise=False, seed=seed)
    factor = noise_factor(encoder, draw)
    own = own_quantiles(encoder, draw, factor, seed=seed + 1)
    return decode_samples(encoder, Z, codes, noise=True, seed=seed, factor=factor, own=own)


def noise_factor(encoder: Encoder, draw: DrawLatents) -> np.ndarray | None:
    """Factor of each gene's noise that brings its variance to that of the training rows.

    Parameters
    ----------
    encoder : Encoder
    draw : callable
        Latents of samples of given classes, as they will be drawn.

    Returns
    -------
    ndarray of float32, shape (n_genes,), or None
        Within `NOISE_FACTORS`; None where the likelihood is not normal.
    """
    likelihood = encoder.module.likelihood
    if not isinstance(likelihood, Gaussian):
        return None
    shares, wanted = _class_shares(encoder), encoder.pca.gene_variances.astype(np.float64)
    if encoder.condition is not None:
        wanted = wanted + shares @ encoder.condition.shift.astype(np.float64) ** 2 / shares.sum()
    codes = np.repeat(np.arange(shares.size), deal(DRAWS, shares))
    noise = np.exp(2 * likelihood.log_scale().detach().double().numpy())
    left = np.maximum(wanted - _decoded_variance(encoder, draw(codes), codes), 0)
    return np.asarray(np.clip(np.sqrt(left / noise), *NOISE_FACTORS), dtype=np.float32)


def own_quantiles(
    encoder: Encoder, draw: DrawLatents, factor: np.ndarray | None, *, seed: int
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
    shares = _class_shares(encoder)
    codes = np.repeat(np.arange(shares.size), deal(DRAWS_FOR_QUANTILES, shares))
    blocks = draw_scaled(encoder, draw(codes), codes, noise=True, seed=seed, factor=factor)
    return fit_levels(np.concatenate([X for _, X in blocks]))


def _class_shares(encoder: Encoder) -> np.ndarray:
    """Training rows of each class; 1 where the model is not conditional."""
    return np.ones(1) if encoder.condition is None else np.asarray(encoder.condition.counts, float)


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
    return np.asarray(squares / len(Z) - (total / len(Z)) ** 2)
