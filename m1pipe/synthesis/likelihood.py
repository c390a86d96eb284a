"""Held-out log-likelihoods of models with different likelihoods and transforms, on one scale.

A density of standardised logarithms, of normal scores and a probability of counts cannot be
compared. What can: the probability that a model gives to each stored value, to within the
resolution of the data. For counts that is half a count on either side, after the normalisation that
the model's recipe asks for. For other data it is `RESOLUTION` on either side, divided by its
width, which is the density with the Jacobian of the transform; zero is everything below it, since
generated levels end there.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import sem
from torch import Tensor

from m1pipe.data.normal_scores import to_places
from m1pipe.data.units import LN, log2p1
from m1pipe.encoder import Encoder, load_encoder
from m1pipe.encoder.likelihood import iwae_bound
from m1pipe.errors import InputError, M1Warning, counted
from m1pipe.io.reader import open_matrix
from m1pipe.models.count_likelihoods import COUNT_LIKELIHOODS
from m1pipe.models.likelihoods import Gaussian, HurdleGaussian, ZeroInflatedLogNormal
from m1pipe.models.mlp import evaluating
from m1pipe.synthesis.sample import ends_at_zero

RESOLUTION = 0.01
DRAWS = 64
ROWS = 64


def compare_runs(
    runs: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str],
    *,
    aliases: str | os.PathLike[str] | None = None,
) -> str:
    """Say how probable the models of several runs find the same samples, on one scale.

    Parameters
    ----------
    runs : sequence of path
        Folders of the models.
    data : path
        Samples that none of them was trained on.
    aliases : path, optional
        Table of other names of genes.

    Returns
    -------
    str
        A line a model: mean over samples in nats a gene, its standard error, and the difference
        to the first model with its own.
    """
    names = [Path(run).name for run in runs]
    if len(set(names)) < len(names):
        raise InputError(f"compare: expected runs of different names; found {', '.join(names)}")
    with open_matrix(data, aliases=aliases) as matrix:
        encoders = dict(zip(names, map(load_encoder, runs), strict=True))
        found = compare_likelihoods(encoders, matrix).to_numpy()
    nats, width = found.T / len(encoders[names[0]].genes), max(map(len, names))
    lines = [f"held-out log-likelihood on one scale, nats a gene, {counted(len(found), 'sample')}:"]
    for name, values in zip(names, nats, strict=True):
        gap = values - nats[0]
        line = f"  {name:{width}}  {values.mean():.4f} (standard error {sem(values):.4f})"
        if name != names[0]:
            line += f"; difference from {names[0]} {gap.mean():+.4f} ({sem(gap):.4f})"
        lines.append(line)
    return "\n".join(lines)


def compare_likelihoods(
    encoders: Mapping[str, Encoder], data: Any, *, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Log-likelihood of every sample under several models, on one scale.

    Parameters
    ----------
    encoders : mapping of str to Encoder
        By name.
    data : path, AnnData, DataFrame, Matrix or (array, names)
        Samples that none of them was trained on, with all of their genes: counts, if one of them
        is a model of counts.
    draws, seed : int
        As for `held_out_likelihood`.

    Returns
    -------
    DataFrame of float64, shape (n_samples, n_models)
        In nats, summed over genes; indexed by sample. Of counts: log-probabilities; otherwise log
        densities in units of the data, with the probability of zero.

    Raises
    ------
    InputError
        If the models have different genes, units or ends at zero, or one of them cannot be
        compared.
    """
    matrix = open_matrix(data)
    for name, encoder in encoders.items():
        _check_comparable(encoder, next(iter(encoders.values())), name, matrix.units.is_counts)
    for name, encoder in encoders.items():
        seen = np.isin(matrix.samples, list(encoder.samples)).sum()
        if seen:
            text = f"{name}: trained on {seen:,} of the {matrix.n_samples:,} samples, which are"
            warnings.warn(f"{text} not held out", M1Warning, stacklevel=2)
    nats = {
        name: held_out_likelihood(encoder, matrix, draws=draws, seed=seed)
        for name, encoder in encoders.items()
    }
    return pd.DataFrame(nats, index=matrix.samples)


def _check_comparable(encoder: Encoder, first: Encoder, name: str, counted: bool) -> None:
    """Refuse a model whose numbers would not be on the scale of the first one's."""
    if set(encoder.genes) != set(first.genes):
        raise InputError(f"{name}: expected the genes of the first model; found others")
    if counted:
        return
    if encoder.units != first.units:
        raise InputError(f"{name}: expected {first.units}, as of the first; found {encoder.units}")
    if ends_at_zero(encoder) != ends_at_zero(first):
        raise InputError(f"{name}: expected levels that end at zero in all models or in none")


def held_out_likelihood(
    encoder: Encoder, data: Any, *, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Log-likelihood of samples under a model, comparable between likelihoods and transforms.

    Parameters
    ----------
    encoder : Encoder
    data : path, AnnData, DataFrame, Matrix or (array, names)
        Samples that it was not trained on; all of its genes.
    draws : int
        Of the posterior; more tighten the bound.
    seed : int

    Returns
    -------
    ndarray of float64, shape (n_samples,)
        Importance-weighted bound of each sample's log-probability, in nats, summed over genes.

    Raises
    ------
    InputError
        If the model is a plain autoencoder, its likelihood has no probabilities of intervals, or a
        model of counts is not given counts.

    References
    ----------
    Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519, equation 8.
    """
    matrix = open_matrix(data)
    likelihood, counted = encoder.module.likelihood, matrix.units.is_counts
    if encoder.config.model.beta == 0:
        raise InputError("likelihood: expected a variational model; found a plain autoencoder")
    if not isinstance(likelihood, (Gaussian, HurdleGaussian, *COUNT_LIKELIHOODS)):
        raise InputError(
            "likelihood: expected a normal one, one with zeros or one of counts; found "
            f"{encoder.config.model.likelihood}: it cannot be compared"
        )
    if encoder.module.of_counts and not counted:
        raise InputError(f"{matrix.path or 'data'}: expected counts; found {matrix.units}")
    aligned = encoder.align(matrix, min_coverage=1.0)
    generator = torch.Generator().manual_seed(seed)
    codes = encoder.codes(matrix)
    nats = np.empty(matrix.n_samples)
    for start, stop, X in aligned.blocks(ROWS):
        rows = np.arange(start, stop)
        raw = matrix.take(rows, aligned.match.columns) if counted else None
        low, high = _intervals(encoder, X, raw, aligned.totals(rows, raw))
        noise = torch.randn((draws, stop - start, encoder.n_latent), generator=generator)
        nats[start:stop] = _bound(encoder, X, None if codes is None else codes[rows], noise,
                                  (low, high))  # fmt: skip
        if raw is None:
            above = (X > 0) if ends_at_zero(encoder) else np.ones(X.shape, dtype=bool)
            nats[start:stop] -= above.sum(axis=1) * np.log(2 * RESOLUTION)
    return nats


def _intervals(
    encoder: Encoder, X: np.ndarray, raw: np.ndarray | None, totals: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval that each value stands for, in units of the model or as counts."""
    if raw is None:
        low, high = X - RESOLUTION, X + RESOLUTION
        return (np.where(X <= 0, -np.inf, low), high) if ends_at_zero(encoder) else (low, high)
    if encoder.module.of_counts:
        return raw, raw
    if totals is None:
        totals = raw.sum(axis=1, dtype=np.float64)
    depth = (encoder.units.target_sum or 1) / totals[:, None]
    ends = [np.maximum(raw + half, 0) * depth for half in (-0.5, 0.5)]
    if encoder.units.is_log:
        natural = encoder.units.name == LN
        ends = [np.log1p(end) if natural else log2p1(end) for end in ends]
    return np.where(raw == 0, -np.inf, ends[0]), ends[1]


def _bound(
    encoder: Encoder,
    X: np.ndarray,
    codes: np.ndarray | None,
    noise: Tensor,
    interval: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Importance-weighted bound of the log-probability of the intervals, shape (n_samples,)."""
    low, high = (torch.from_numpy(_scaled(encoder, end)) for end in interval)
    x = torch.from_numpy(encoder.scaler.apply(X))
    classes = None if codes is None else torch.from_numpy(codes)
    mass = partial(_log_mass, encoder.module.likelihood, low, high)
    with evaluating(encoder.module), torch.no_grad():
        found = iwae_bound(encoder.module, x, noise, classes, log_prob=mass)
    return found.double().numpy()


def _scaled(encoder: Encoder, ends: np.ndarray) -> np.ndarray:
    """Ends of intervals on the scale of the likelihood, float64."""
    scaler = encoder.scaler
    if scaler.levels is not None:
        return to_places(ends, scaler.levels)
    return np.asarray((ends.astype(np.float64) - scaler.location) / scaler.scale)


def _log_mass(likelihood: Any, low: Tensor, high: Tensor, eta: Tensor) -> Tensor:
    """Log probability of each interval given the decoder's output; of counts that of `low`."""
    eta = eta.double()
    if isinstance(likelihood, COUNT_LIKELIHOODS):
        return likelihood.log_prob(low, eta)
    if isinstance(likelihood, Gaussian):
        return _normal_mass(low, high, eta, likelihood)
    where, present = eta.chunk(2, 1)
    if isinstance(likelihood, ZeroInflatedLogNormal):
        low, high = likelihood.to_log(low), likelihood.to_log(high)
    mass = _normal_mass(low, high, where, likelihood.positive)
    some = torch.nn.functional.logsigmoid(present) + mass
    none = torch.nn.functional.logsigmoid(-present)
    return torch.where(low == -torch.inf, torch.logaddexp(none, some), some)


def _normal_mass(low: Tensor, high: Tensor, mean: Tensor, likelihood: Gaussian) -> Tensor:
    """Log of the normal probability between two ends, accurate in both tails."""
    spread = likelihood.log_scale().double().exp()
    a, b = (low - mean) / spread, (high - mean) / spread
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    top, bottom = torch.special.log_ndtr(b), torch.special.log_ndtr(a)
    return torch.as_tensor(top + torch.log1p(-torch.exp(torch.clamp(bottom - top, max=-1e-12))))
