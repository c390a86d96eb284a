"""Laws of a gene's level given the decoder's output `eta`: log density, mean, sampling.

Every law works element by element on (n_samples, n_genes) tensors on the scale that the network
sees (after the per-gene transform); sums over genes are taken by the loss.
"""

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIGMA_BOUNDS = (0.1, 4.0)
PSEUDOCOUNT = 1e-8
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Likelihood(Protocol):
    """What a law offers; `x` has shape (n_samples, n_genes), `eta` n_outputs times the width."""

    n_outputs: int

    def log_prob(self, x: Tensor, eta: Tensor) -> Tensor:
        """Log density (nats) of each level.

        Parameters
        ----------
        x : Tensor, shape (n_samples, n_genes)
            Transformed levels.
        eta : Tensor, shape (n_samples, n_outputs * n_genes)

        Returns
        -------
        Tensor, shape (n_samples, n_genes)
        """

    def mean(self, eta: Tensor) -> Tensor:
        """Expected level.

        Parameters
        ----------
        eta : Tensor, shape (n_samples, n_outputs * n_genes)

        Returns
        -------
        Tensor, shape (n_samples, n_genes)
        """

    def link(self, mean: Tensor) -> Tensor:
        """The `eta` that has this mean.

        Parameters
        ----------
        mean : Tensor, shape (n_genes,) or (n_samples, n_genes)

        Returns
        -------
        Tensor, shape (n_outputs * n_genes,) or (n_samples, n_outputs * n_genes)
        """

    def sample(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of each level.

        Parameters
        ----------
        eta : Tensor, shape (n_samples, n_outputs * n_genes)
        generator : torch.Generator, optional

        Returns
        -------
        Tensor, shape (n_samples, n_genes)
        """


class Gaussian(nn.Module):
    """Normal law with mean `eta`.

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
        if self.raw_scale is None:
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

    def minus_total(self, x: Tensor, eta: Tensor) -> Tensor:
        """Minus the log density of each sample, shape (n_samples,): of all its genes together."""
        if self.raw_scale is None or torch._C._are_functorch_transforms_active():
            return -self.log_prob(x, eta).sum(1)
        log_scale = self.log_scale().expand(x.shape[1])
        found: Tensor = GaussianMinusTotal.apply(x, eta, log_scale)  # type: ignore[no-untyped-call]
        return found

    def mean(self, eta: Tensor) -> Tensor:
        """Expected level: `eta` itself, shape (n_samples, n_genes)."""
        return eta

    def link(self, mean: Tensor) -> Tensor:
        """The `eta` that has this mean: the mean itself, shape (n_samples, n_genes)."""
        return mean

    def sample(self, eta: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of each level, shape (n_samples, n_genes)."""
        return eta + self.log_scale().to(eta).exp() * _noise(eta, generator)


class GaussianMinusTotal(torch.autograd.Function):
    """Minus the log density under the normal law, summed over genes, with closed gradients.

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
        uniform = torch.rand(eta.shape, generator=generator, dtype=eta.dtype, device=eta.device)
        return (uniform < torch.sigmoid(eta)).to(eta.dtype)


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, type and device of `like`."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
