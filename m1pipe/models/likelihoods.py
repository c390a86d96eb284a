"""Likelihoods of a gene's level given the decoder's output: log density, mean, sampling.

`x` has shape (n_samples, n_genes), on the scale that the network sees (after the per-gene
transform); `eta` is `n_outputs` times as wide. Every likelihood has `log_prob(x, eta)` in nats,
`mean(eta)` and `sample(eta, generator)`, of the shape of `x`, and `link(mean)`, the `eta` that has
this mean. They work element by element; the loss sums over genes. Those of counts are in
`count_likelihoods.py`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models.count_likelihoods import NegativeBinomial, ZeroInflatedNegativeBinomial, succeeds
from m1pipe.models.kernels import under_vmap

SIGMA_BOUNDS = (0.1, 4.0)
PSEUDOCOUNT = 1e-8
ABOUT_ZERO = 1e-4  # in units of the data: what scaling there and back may leave of a zero
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


class Gaussian(nn.Module):
    """Normal distribution with mean `eta`.

    Parameters
    ----------
    n_scales : int
        Number of learned standard deviations: one a gene, 1 for one that all genes share, or 0
        for a standard deviation of 1 that is not learned.
    bounds : pair of float
        The learned standard deviations stay strictly between these, by a logistic curve: unlike
        a hard clamp it leaves every parameter a gradient, so none is stuck at a bound.
    """

    n_outputs = 1

    def __init__(self, n_scales: int, bounds: tuple[float, float] = SIGMA_BOUNDS) -> None:
        super().__init__()
        self.low, self.high = math.log(bounds[0]), math.log(bounds[1])
        self.raw_scale = nn.Parameter(torch.empty(n_scales)) if n_scales else None
        self.set_scale(torch.ones(max(n_scales, 1)))

    def log_scale(self) -> Tensor:
        """Natural log of the standard deviations, shape (n_scales,); one 0 where not learned."""
        if self.raw_scale is None:
            return torch.zeros(1)
        return self.low + (self.high - self.low) * torch.sigmoid(self.raw_scale)

    def set_scale(self, scale: Tensor) -> None:
        """Start the learned standard deviations at `scale`, shape (n_scales,), kept in bounds."""
        # On the meta device a logarithm would import for a second.
        if self.raw_scale is None or self.raw_scale.is_meta:
            return
        share = (scale.log() - self.low) / (self.high - self.low)
        with torch.no_grad():
            self.raw_scale.copy_(torch.logit(share.clamp(0.01, 0.99)))

    def log_prob(self, x: Tensor, eta: Tensor) -> Tensor:
        """Log density (nats) of each level, shape (n_samples, n_genes)."""
        if self.raw_scale is None:
            return -0.5 * (x - eta).square() - _HALF_LOG_TWO_PI
        log_scale = self.log_scale()
        return -0.5 * ((x - eta) * torch.exp(-log_scale)).square() - log_scale - _HALF_LOG_TWO_PI

    def negative_log_likelihood(self, x: Tensor, eta: Tensor) -> Tensor:
        """Minus the log density of each sample, shape (n_samples,): of all its genes together."""
        if self.raw_scale is None or under_vmap():
            return -self.log_prob(x, eta).sum(1)
        log_scale = self.log_scale().expand(x.shape[1])
        return GaussianNegativeLogLikelihood.apply(x, eta, log_scale)  # type: ignore[no-untyped-call]

    def mean(self, eta: Tensor) -> Tensor:
        """Expected level: `eta` itself, shape (n_samples, n_genes)."""
        return eta

    def link(self, mean: Tensor) -> Tensor:
        """The `eta` that has this mean: the mean itself, shape (n_samples, n_genes)."""
        return mean

    def sample(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of each level, shape (n_samples, n_genes)."""
        return eta + self.log_scale().to(eta).exp() * _noise(eta, generator)


class GaussianNegativeLogLikelihood(torch.autograd.Function):
    """Minus the log density of a normal distribution, summed over genes, with closed gradients.

    A step of training passes over the levels less often than by one operation after another, and
    keeps nothing of their size. In the form that `vmap` takes a call would cost 25 microseconds
    more, or a hundredth of a small network's step: there `Gaussian` goes without.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eta: Tensor, log_scale: Tensor) -> Tensor:
        """Sums, shape (n_samples,), from levels, means and log scales, shape (n_genes,)."""
        ctx.save_for_backward(x, eta, log_scale)
        squares = ((x - eta) * torch.exp(-log_scale)).square_().sum(1)
        return 0.5 * squares + (log_scale.sum() + len(log_scale) * _HALF_LOG_TWO_PI)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of levels (where needed), means and log scales."""
        x, eta, log_scale = ctx.saved_tensors
        inverse = torch.exp(-log_scale)
        scaled = (eta - x) * inverse
        of_scale = slope.sum() - slope @ scaled.square()
        of_mean = scaled.mul_(inverse).mul_(slope[:, None])
        return -of_mean if ctx.needs_input_grad[0] else None, of_mean, of_scale


class LogNormal(nn.Module):
    """log(x + pseudocount) is normal with mean `eta` and standard deviation 1.

    Kept for parity with published work: where many levels are zero, a tiny pseudocount puts
    nearly all of the variance into whether a level is zero.
    """

    n_outputs = 1

    def __init__(self, pseudocount: float = PSEUDOCOUNT) -> None:
        super().__init__()
        self.pseudocount = pseudocount

    def log_prob(self, x: Tensor, eta: Tensor) -> Tensor:
        """Log density (nats) of each level, the Jacobian of the logarithm included.

        Shape (n_samples, n_genes).
        """
        log_x = torch.log(x + self.pseudocount)
        return -0.5 * (log_x - eta).square() - _HALF_LOG_TWO_PI - log_x

    def mean(self, eta: Tensor) -> Tensor:
        """Expected level, shape (n_samples, n_genes)."""
        return torch.exp(eta + 0.5) - self.pseudocount

    def link(self, mean: Tensor) -> Tensor:
        """The `eta` that has this mean, shape (n_samples, n_genes)."""
        return torch.log(mean + self.pseudocount) - 0.5

    def sample(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of each level, shape (n_samples, n_genes)."""
        return torch.exp(eta + _noise(eta, generator)) - self.pseudocount


class Bernoulli(nn.Module):
    """A level in [0, 1] read as the probability of a success whose log-odds are `eta`."""

    n_outputs = 1

    def log_prob(self, x: Tensor, eta: Tensor) -> Tensor:
        """Minus the cross-entropy (nats) of each level, shape (n_samples, n_genes)."""
        return x * eta - F.softplus(eta)

    def mean(self, eta: Tensor) -> Tensor:
        """Expected level, shape (n_samples, n_genes)."""
        return torch.sigmoid(eta)

    def link(self, mean: Tensor) -> Tensor:
        """The log-odds of this mean, kept finite at 0 and 1, shape (n_samples, n_genes)."""
        return torch.logit(mean, eps=1e-3)

    def sample(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw, 0 or 1, of each level, shape (n_samples, n_genes)."""
        return succeeds(eta, generator).to(eta.dtype)


class HurdleGaussian(nn.Module):
    """Absent with a probability; where present, normal with mean `eta` and a learned spread.

    Parameters
    ----------
    n_genes : int
    """

    n_outputs = 2
    location: Tensor
    scale: Tensor

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.positive = Gaussian(n_genes)
        self.register_buffer("location", torch.zeros(n_genes))
        self.register_buffer("scale", torch.ones(n_genes))

    def set_units(self, location: Tensor, scale: Tensor) -> None:
        """Take the per-gene transform, each of shape (n_genes,), that says where zero lies."""
        self.location.copy_(location)
        self.scale.copy_(scale)

    def log_prob(self, x: Tensor, eta: Tensor) -> Tensor:
        """Log probability of absence, or log density (nats) of each level that is present.

        Shape (n_samples, n_genes), of `eta` (n_samples, 2 * n_genes).
        """
        where, present = eta.chunk(2, 1)
        level = F.logsigmoid(present) + self._log_density(x, where)
        return torch.where(
            x * self.scale + self.location <= ABOUT_ZERO, F.logsigmoid(-present), level
        )

    def mean(self, eta: Tensor) -> Tensor:
        """Expected level.

        Shape (n_samples, n_genes), of `eta` (n_samples, 2 * n_genes).
        """
        where, present = eta.chunk(2, 1)
        share = torch.sigmoid(present)
        return share * self._expected(where) + (1 - share) * self._zero

    def link(self, mean: Tensor) -> Tensor:
        """An `eta` for this mean: present half of the time, at twice its distance from zero.

        Shape (n_samples, 2 * n_genes) for a mean of (n_samples, n_genes).
        """
        where = self._zero + 2 * (mean - self._zero)
        return torch.cat([self._located(where), torch.zeros_like(mean)], -1)

    def sample(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of each level.

        Shape (n_samples, n_genes), of `eta` (n_samples, 2 * n_genes).
        """
        where, present = eta.chunk(2, 1)
        is_present = succeeds(present, generator)
        drawn = self._level(self.positive.sample(where, generator))
        return torch.where(is_present, drawn, self._zero.to(eta))

    @property
    def _zero(self) -> Tensor:
        return -self.location / self.scale

    def _log_density(self, x: Tensor, where: Tensor) -> Tensor:
        return self.positive.log_prob(x, where)

    def _expected(self, where: Tensor) -> Tensor:
        return where

    def _located(self, level: Tensor) -> Tensor:
        return level

    def _level(self, drawn: Tensor) -> Tensor:
        return drawn


class ZeroInflatedLogNormal(HurdleGaussian):
    """For u = log2(1 + v): v is 0 with a probability, and log-normal otherwise.

    The natural log of v is normal with mean `eta` and a learned spread; densities are those of x.
    """

    def _log_density(self, x: Tensor, where: Tensor) -> Tensor:
        u = (x * self.scale + self.location).clamp_min(ABOUT_ZERO)
        log_v = torch.log(torch.expm1(u * math.log(2)))
        steepness = math.log(math.log(2)) + u * math.log(2) - log_v
        return self.positive.log_prob(log_v, where) + steepness + torch.log(self.scale)

    def _expected(self, where: Tensor) -> Tensor:
        spread = self.positive.log_scale().exp()
        nodes = zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True)
        parts = (float(w) * self._level(where + float(t) * spread) for t, w in nodes)
        return torch.stack(tuple(parts)).sum(0)

    def _located(self, level: Tensor) -> Tensor:
        u = (level * self.scale + self.location).clamp_min(0.01)
        return torch.log(torch.expm1(u * math.log(2)))

    def _level(self, drawn: Tensor) -> Tensor:
        return (F.softplus(drawn) / math.log(2) - self.location) / self.scale

    def to_log(self, x: Tensor) -> Tensor:
        """Natural log of v at transformed levels x; minus infinity from zero down.

        Parameters
        ----------
        x : Tensor, shape (n_samples, n_genes)

        Returns
        -------
        Tensor, shape (n_samples, n_genes)
        """
        u = x * self.scale + self.location
        return torch.log(torch.expm1(u.clamp_min(0) * math.log(2)))


Likelihood = (
    Gaussian
    | LogNormal
    | Bernoulli
    | HurdleGaussian
    | ZeroInflatedLogNormal
    | NegativeBinomial
    | ZeroInflatedNegativeBinomial
)


def make_likelihood(name: str, n_genes: int) -> Likelihood:
    """Likelihood by its name in the configuration.

    Raises
    ------
    ValueError
        If there is no likelihood of that name.
    """
    make: dict[str, Callable[[], Likelihood]] = {
        "gaussian": lambda: Gaussian(n_genes),
        "gaussian_shared": lambda: Gaussian(1),
        "gaussian_unit": lambda: Gaussian(0),
        "log_normal": LogNormal,
        "bernoulli": Bernoulli,
        "hurdle_gaussian": lambda: HurdleGaussian(n_genes),
        "zero_inflated_log_normal": lambda: ZeroInflatedLogNormal(n_genes),
        "negative_binomial": lambda: NegativeBinomial(n_genes),
        "zero_inflated_negative_binomial": lambda: ZeroInflatedNegativeBinomial(n_genes),
    }
    if name in make:
        return make[name]()
    raise ValueError(f"likelihood: no likelihood is named {name!r}")


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, type and device of `like`."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
