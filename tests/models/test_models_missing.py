"""The loss of rows with missing levels: a sum over the levels that are there, and nothing else."""

import numpy as np
import pytest
import torch
from scipy import stats

from m1pipe.config import ModelConfig
from m1pipe.models.vae import PosteriorNoise, VAEModule, mask_missing, vae_loss, zero_layer

N, P, K = 15, 9, 3


def _module(**settings: object) -> VAEModule:
    torch.manual_seed(0)
    chosen = {"n_latent": K, "hidden": (8,), "linear_skip": False, **settings}
    return VAEModule(P, ModelConfig(**chosen)).eval()


def _noise(seed: int) -> PosteriorNoise:
    return PosteriorNoise(torch.Generator().manual_seed(seed))


@pytest.fixture
def gaps() -> torch.Tensor:
    x = torch.rand(N, P, generator=torch.Generator().manual_seed(1))
    x[torch.rand(N, P, generator=torch.Generator().manual_seed(2)) < 0.3] = torch.nan
    assert torch.isnan(x).any() and not torch.isnan(x).all(1).any()
    return x


def _log_density(name: str, x: np.ndarray, eta: np.ndarray, module: VAEModule) -> np.ndarray:
    if name == "bernoulli":
        share = 1 / (1 + np.exp(-eta))
        return x * np.log(share) + (1 - x) * np.log1p(-share)
    sd = module.likelihood.log_scale().exp().detach().numpy()
    return stats.norm.logpdf(x, eta, sd)


@pytest.mark.parametrize("name", ["gaussian", "gaussian_unit", "bernoulli"])
def test_reconstruction_is_the_sum_over_known_levels(name: str, gaps: torch.Tensor) -> None:
    module, means = _module(likelihood=name, beta=0.0), torch.full((1, P), 0.5)
    x, known = mask_missing(gaps, means, None)
    found = vae_loss(module, x, beta=0.0, known=known)["reconstruction"].detach().numpy()
    levels = gaps.numpy()
    filled = np.where(np.isnan(levels), 0.5, levels).astype(np.float32)
    eta = module.decode(module.encode_mu(torch.from_numpy(filled))).detach().numpy()
    for i in range(N):
        terms = _log_density(name, levels[i], eta[i], module)
        there = [terms[j] for j in range(P) if not np.isnan(levels[i, j])]
        assert found[i] == pytest.approx(-sum(there), rel=1e-4)


@pytest.mark.parametrize(
    "name", ["gaussian", "log_normal", "hurdle_gaussian", "zero_inflated_log_normal", "bernoulli"]
)
def test_nothing_depends_on_what_stands_where_a_level_is_missing(
    name: str, gaps: torch.Tensor
) -> None:
    """With an encoder that sees nothing, missing places get no gradient and no other loss."""
    module = _module(likelihood=name)
    zero_layer(module.mu_head)
    zero_layer(module.logvar_head)
    known, losses, gradients = ~torch.isnan(gaps), [], []
    for content in (0.1, 0.9):
        x = torch.where(known, gaps, content).requires_grad_()
        generator = torch.Generator().manual_seed(3)
        loss = vae_loss(module, x, beta=1.0, known=known, noise=PosteriorNoise(generator))["loss"]
        module.zero_grad()
        loss.sum().backward()
        losses.append(loss.detach())
        gradients.append([p.grad.clone() for p in module.decoder.parameters()])
        assert x.grad is not None and (x.grad[~known] == 0).all() and (x.grad[known] != 0).any()
    assert torch.equal(losses[0], losses[1])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_where_nothing_is_missing_the_loss_is_the_same() -> None:
    module, x = _module(), torch.randn(N, P, generator=torch.Generator().manual_seed(4))
    found = [
        vae_loss(module, x, beta=1.0, known=known, noise=_noise(5))
        for known in (None, torch.ones(N, P, dtype=torch.bool))
    ]
    torch.testing.assert_close(found[0]["loss"], found[1]["loss"], rtol=1e-6, atol=0)


def test_missing_levels_stand_at_the_mean_of_their_class() -> None:
    x = torch.tensor([[1.0, torch.nan], [torch.nan, 2.0]])
    means = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    filled, known = mask_missing(x, means, torch.tensor([0, 1]))
    assert filled.tolist() == [[1.0, 20.0], [30.0, 2.0]]
    assert known.tolist() == [[True, False], [False, True]]
