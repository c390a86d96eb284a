"""Likelihoods of counts given a library size, and the inputs of an encoder of counts.

`eta` holds natural logs of expected counts, the library size in them; where counts are
zero-inflated, then the log-odds of a count that was lost, shape (n_samples, 2 n_genes).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Gamma
from torch.distributions import NegativeBinomial as TorchNegativeBinomial

DEPTH = 1e4
LOG_THETA_BOUNDS = (-6.0, 10.0)
LOG_TIMES = np.arange(-20.0, 4.0)
"""Nodes of the trapezoidal rule in `NegativeBinomial.mean_log1p`."""


def succeeds(log_odds: Tensor, generator: torch.Generator | None) -> Tensor:
    """One draw, true or false, of each success with these log-odds, of their shape."""
    uniform = torch.rand(
        log_odds.shape, generator=generator, dtype=log_odds.dtype, device=log_odds.device
    )
    return uniform < torch.sigmoid(log_odds)


class NegativeBinomial(nn.Module):
    """Counts with mean m and variance m + m^2 / theta, theta learned for every gene.

    Parameters
    ----------
    n_genes : int

    References
    ----------
    Lopez et al. 2018, Nat. Methods 15:1053.
    """

    n_outputs = 1

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.log_theta = nn.Parameter(torch.zeros(n_genes))

    def log_prob(self, x: Tensor, eta: Tensor) -> Tensor:
        """Log probability (nats) of each count, shape (n_samples, n_genes)."""
        return self._distribution(eta).log_prob(x)

    def mean(self, eta: Tensor) -> Tensor:
        """Expected count, shape (n_samples, n_genes)."""
        return torch.exp(eta)

    def link(self, mean: Tensor) -> Tensor:
        """The `eta` that has this mean, shape (n_samples, n_genes)."""
        return torch.log(mean.clamp_min(1e-6))

    def sample(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw, a whole number, of each count, shape (n_samples, n_genes)."""
        with _seeded(generator, eta.device):
            return self._distribution(eta).sample()

    def sample_given_total(
        self, eta: Tensor, total: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """One draw of the counts of samples whose totals are known, shape (n_samples, n_genes).

        The rates of a negative binomial are gamma variates; Poisson counts given their total are
        multinomial.

        Parameters
        ----------
        eta : Tensor, shape (n_samples, n_genes)
        total : Tensor, shape (n_samples, 1)
        generator : torch.Generator, optional
        """
        return _multinomial(self.rates(eta, generator), total, generator)

    def rates(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of the rate of each count, float64, shape (n_samples, n_genes)."""
        theta = self.theta.double().expand_as(eta)
        with _seeded(generator, eta.device):
            return Gamma(theta, theta * torch.exp(-eta.double())).sample()

    def mean_log1p(self, eta: Tensor, factor: Tensor) -> Tensor:
        """Expectation of log(1 + factor * count), shape (n_samples, n_genes).

        By Frullani's integral it is that of exp(-t) / t * (1 - E[exp(-factor * t * count)]) over
        positive t, in which the generating function of the counts is known.

        Parameters
        ----------
        eta : Tensor, shape (n_samples, n_genes)
        factor : Tensor, shape (n_samples, 1)
        """
        theta, found = self.theta, torch.zeros_like(eta)
        ratio = torch.exp(eta) / theta
        for time in np.exp(LOG_TIMES):
            lacking = -torch.expm1(-factor * time)
            found -= np.exp(-time) * torch.expm1(-theta * torch.log1p(ratio * lacking))
        return found

    @property
    def theta(self) -> Tensor:
        """Inverse dispersion of each gene, shape (n_genes,)."""
        return self.log_theta.clamp(*LOG_THETA_BOUNDS).exp()

    def set_theta(self, theta: Tensor) -> None:
        """Start the inverse dispersions at `theta`, shape (n_genes,), kept in bounds."""
        with torch.no_grad():
            self.log_theta.copy_(theta.log().clamp(*LOG_THETA_BOUNDS))

    def _distribution(self, eta: Tensor) -> TorchNegativeBinomial:
        log_theta = self.log_theta.clamp(*LOG_THETA_BOUNDS)
        return TorchNegativeBinomial(log_theta.exp(), logits=eta - log_theta, validate_args=False)


class ZeroInflatedNegativeBinomial(nn.Module):
    """A negative binomial count that is lost, and read as 0, with a probability."""

    n_outputs = 2

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.counts = NegativeBinomial(n_genes)

    def log_prob(self, x: Tensor, eta: Tensor) -> Tensor:
        """Log probability (nats) of each count.

        Shape (n_samples, n_genes), of `eta` (n_samples, 2 * n_genes).
        """
        log_mean, lost = eta.chunk(2, 1)
        kept = F.logsigmoid(-lost) + self.counts.log_prob(x, log_mean)
        return torch.where(x == 0, torch.logaddexp(F.logsigmoid(lost), kept), kept)

    def mean(self, eta: Tensor) -> Tensor:
        """Expected count.

        Shape (n_samples, n_genes), of `eta` (n_samples, 2 * n_genes).
        """
        log_mean, lost = eta.chunk(2, 1)
        return torch.sigmoid(-lost) * torch.exp(log_mean)

    def link(self, mean: Tensor) -> Tensor:
        """An `eta` that has about this mean: one count in twenty is lost.

        Shape (n_samples, 2 * n_genes) for a mean of (n_samples, n_genes).
        """
        return torch.cat([self.counts.link(mean), torch.full_like(mean, -3.0)], -1)

    def sample(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw, a whole number, of each count.

        Shape (n_samples, n_genes), of `eta` (n_samples, 2 * n_genes).
        """
        log_mean, lost = eta.chunk(2, 1)
        drawn = self.counts.sample(log_mean, generator)
        return drawn.masked_fill(succeeds(lost, generator), 0)

    def sample_given_total(
        self, eta: Tensor, total: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """As of `NegativeBinomial`, of `eta` (n_samples, 2 * n_genes); lost counts stay 0."""
        log_mean, lost = eta.chunk(2, 1)
        is_lost = succeeds(lost, generator)
        rates = self.counts.rates(log_mean, generator)
        return _multinomial(rates.masked_fill(is_lost, 0), total, generator)

    def mean_log1p(self, eta: Tensor, factor: Tensor) -> Tensor:
        """As of `NegativeBinomial`, of `eta` (n_samples, 2 * n_genes)."""
        log_mean, lost = eta.chunk(2, 1)
        return torch.sigmoid(-lost) * self.counts.mean_log1p(log_mean, factor)

    def set_theta(self, theta: Tensor) -> None:
        """As of `NegativeBinomial`."""
        self.counts.set_theta(theta)


COUNT_LIKELIHOODS = (NegativeBinomial, ZeroInflatedNegativeBinomial)


class CountInputs(nn.Module):
    """Inputs of an encoder of counts: log(1 + 10,000 x / library size), standardised by gene.

    Attributes
    ----------
    location, scale : Tensor, shape (n_genes,)
        Of the training rows.
    mean_counts : Tensor, shape (n_genes,)
        Mean counts of the training rows.
    log_library : Tensor, shape (2,)
        Mean and standard deviation of the training rows' log library size.
    """

    location: Tensor
    scale: Tensor
    mean_counts: Tensor
    log_library: Tensor

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(n_genes))
        self.register_buffer("scale", torch.ones(n_genes))
        self.register_buffer("mean_counts", torch.ones(n_genes))
        self.register_buffer("log_library", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised log-normalised counts, shape (n_samples, n_genes)."""
        return (torch.log1p(DEPTH * x / library_size(x)) - self.location) / self.scale

    def expected(self, likelihood: nn.Module, eta: Tensor, library: Tensor) -> Tensor:
        """What is expected of the inputs given `eta`, shape (n_samples, n_genes).

        The expectation of the logarithms, and not the logarithm of expected counts, which is
        higher: R2 compares the former with what PCA makes of the logarithms.

        Parameters
        ----------
        likelihood : NegativeBinomial or ZeroInflatedNegativeBinomial
        eta : Tensor, shape (n_samples, n_genes) or twice as wide
        library : Tensor, shape (n_samples, 1)
        """
        logs: Tensor = likelihood.mean_log1p(eta, DEPTH / library)  # type: ignore[operator]
        return (logs - self.location) / self.scale


def library_size(x: Tensor) -> Tensor:
    """Total count of each sample, at least 1, shape (n_samples, 1)."""
    return x.sum(1, keepdim=True).clamp_min(1)


def _multinomial(rates: Tensor, total: Tensor, generator: torch.Generator | None) -> Tensor:
    """Counts of these totals, shape (n_samples, 1), in proportion to rates, of the shape of both.

    Where all rates of a sample are 0, so are its counts.
    """
    device = None if generator is None else generator.device
    seed = torch.randint(2**62, (1,), generator=generator, device=device)
    sums = rates.sum(1, keepdim=True)
    shares = (rates / sums.clamp_min(torch.finfo(rates.dtype).tiny)).cpu().numpy()
    wanted = torch.where(sums > 0, total.round(), 0)[:, 0].long().cpu().numpy()
    drawn = np.random.default_rng(int(seed)).multinomial(wanted, shares)
    return torch.from_numpy(drawn).to(total)


@contextmanager
def _seeded(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Let torch.distributions, which take no generator, draw from this one."""
    if generator is None:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(seed))
        yield
