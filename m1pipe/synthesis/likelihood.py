"""Held-out log-likelihood of models with different laws and transforms, on one scale.

A density of standardised logarithms, of normal scores and a probability of counts cannot be
compared. What can: the probability that a model gives to each stored value, to within the
resolution of the data. For counts that is half a count on either side, after the normalisation that
the model's recipe asks for. For other data it is `RESOLUTION` on either side, divided by its
width, which is the density with the Jacobian of the transform; zero is everything below it, since
generated levels end there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m1pipe.data.normal_scores import to_places
from m1pipe.data.units import LN, log2p1
from m1pipe.encoder import Encoder
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.models.counts import COUNT_LIKELIHOODS
from m1pipe.models.likelihoods import Gaussian, HurdleGaussian, ZeroInflatedLogNormal
from m1pipe.models.mlp import evaluating
from m1pipe.synthesis.sample import ends_at_zero

RESOLUTION = 0.01
DRAWS = 64
ROWS = 64


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Log-likelihood of samples that a model was not trained on.

    Attributes
    ----------
    nats : ndarray, shape (n_samples,)
        Importance-weighted bound of each sample's log-probability, summed over genes.
    n_genes : int
    of_counts : bool
        Whether values are probabilities of counts; otherwise densities in units of the data, with
        the probability of zero.
    """

    nats: np.ndarray
    n_genes: int
    of_counts: bool

    @property
    def per_gene(self) -> float:
        """Mean over samples, in nats a gene."""
        return float(self.nats.mean() / self.n_genes)

    @property
    def standard_error(self) -> float:
        """Of `per_gene`, over samples."""
        return float(self.nats.std(ddof=1) / np.sqrt(self.nats.size) / self.n_genes)


def held_out_likelihood(
    encoder: Encoder, data: Any, *, draws: int = DRAWS, seed: int = 0
) -> HeldOut:
    """Log-likelihood of samples under a model, comparable between laws and transforms.

    Parameters
    ----------
    encoder : Encoder
    data : path, AnnData, DataFrame, Matrix or (array, names)
        Samples that it was not trained on; all of its genes. Compare models on the same file:
        counts, if one of them has a law of counts.
    draws : int
        Of the posterior; more tighten the bound.
    seed : int

    Returns
    -------
    HeldOut

    Raises
    ------
    InputError
        If the law has no probabilities of intervals, or a law of counts is not given counts.

    References
    ----------
    Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519, equation 8.
    """
    matrix = open_matrix(data)
    law = encoder.module.likelihood
    counted = matrix.units.is_counts
    if not isinstance(law, (Gaussian, HurdleGaussian, *COUNT_LIKELIHOODS)):
        raise InputError(
            "likelihood: expected a normal law, one with zeros or one of counts; found "
            f"{encoder.config.model.likelihood}: it cannot be compared"
        )
    if isinstance(law, COUNT_LIKELIHOODS) and not counted:
        raise InputError(f"{matrix.path or 'data'}: expected counts; found {matrix.units}")
    aligned = encoder.align(matrix, min_coverage=1.0)
    generator = torch.Generator().manual_seed(seed)
    codes = encoder.codes(matrix)
    nats = np.empty(matrix.n_samples)
    for start, stop, X in aligned.blocks(ROWS):
        raw = matrix.take(np.arange(start, stop), aligned.match.columns) if counted else None
        told = None if codes is None else torch.from_numpy(codes[start:stop])
        totals = aligned.totals(np.arange(start, stop), raw)
        low, high = _intervals(encoder, X, raw, totals)
        nats[start:stop] = _bound(encoder, X, told, (low, high), (draws, generator))
        if raw is None:
            above = (X > 0) if ends_at_zero(encoder) else np.ones(X.shape, dtype=bool)
            nats[start:stop] -= above.sum(axis=1) * np.log(2 * RESOLUTION)
    return HeldOut(nats, len(encoder.genes), counted)


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
    codes: Tensor | None,
    interval: tuple[np.ndarray, np.ndarray],
    drawing: tuple[int, torch.Generator],
) -> np.ndarray:
    """Log of the mean over draws of P(interval | z) p(z) / q(z | x), shape (n_samples,)."""
    module, (draws, generator) = encoder.module, drawing
    low, high = (torch.from_numpy(_scaled(encoder, end)) for end in interval)
    x = torch.from_numpy(encoder.scaler.apply(X))
    weights = []
    with evaluating(module), torch.no_grad():
        mu, logvar = module.encode(x, codes)
        for _ in range(draws):
            noise = torch.randn(mu.shape, generator=generator)
            z = mu + noise * (0.5 * logvar).exp()
            eta = module.decode(z, codes, module.library(x)).double()
            ratio = 0.5 * (noise.square() - z.square() + logvar).sum(1)
            weights.append(_log_mass(module.likelihood, low, high, eta).sum(1) + ratio)
    found: np.ndarray = (torch.stack(weights).logsumexp(0) - np.log(draws)).numpy()
    return found


def _scaled(encoder: Encoder, ends: np.ndarray) -> np.ndarray:
    """Ends of intervals on the scale of the law, float64."""
    scaler = encoder.scaler
    if scaler.levels is not None:
        return to_places(ends, scaler.levels)
    scaled: np.ndarray = (ends.astype(np.float64) - scaler.location) / scaler.scale
    return scaled


def _log_mass(law: Any, low: Tensor, high: Tensor, eta: Tensor) -> Tensor:
    """Log probability of each interval; of a law of counts that of `low`."""
    if isinstance(law, COUNT_LIKELIHOODS):
        return law.log_prob(low, eta)
    if isinstance(law, Gaussian):
        return _normal_mass(low, high, eta, law)
    where, present = eta.chunk(2, 1)
    if isinstance(law, ZeroInflatedLogNormal):
        low, high = law.to_log(low), law.to_log(high)
    some = torch.nn.functional.logsigmoid(present) + _normal_mass(low, high, where, law.positive)
    none = torch.nn.functional.logsigmoid(-present)
    return torch.where(low == -torch.inf, torch.logaddexp(none, some), some)


def _normal_mass(low: Tensor, high: Tensor, mean: Tensor, law: Gaussian) -> Tensor:
    """Log of the normal probability between two ends, accurate in both tails."""
    spread = law.log_scale().double().exp()
    a, b = (low - mean) / spread, (high - mean) / spread
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    top, bottom = torch.special.log_ndtr(b), torch.special.log_ndtr(a)
    found: Tensor = top + torch.log1p(-torch.exp(torch.clamp(bottom - top, max=-1e-12)))
    return found
