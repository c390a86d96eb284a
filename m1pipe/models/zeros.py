"""Laws of levels with many exact zeros: absent or present, and how much where present.

`eta` holds two numbers a gene, shape (n_samples, 2 n_genes): first the location of all genes where
they are present, then the log-odds of their presence. The per-gene transform is affine,
x = (u - location) / scale with u in units of the data, where absence is u = 0.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models.likelihoods import Gaussian

ABOUT_ZERO = 1e-4  # in units of the data: what scaling there and back may leave of a zero
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


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
        return torch.where(self._absent(x), F.logsigmoid(-present), level)

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
        uniform = torch.rand(present.shape, generator=generator, dtype=eta.dtype, device=eta.device)
        drawn = self._level(self.positive.sample(where, generator))
        return torch.where(uniform < torch.sigmoid(present), drawn, self._zero.to(eta))

    @property
    def _zero(self) -> Tensor:
        return -self.location / self.scale

    def _absent(self, x: Tensor) -> Tensor:
        return x * self.scale + self.location <= ABOUT_ZERO

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
