"""Likelihoods with zeros and of counts, against scipy and torch.distributions, in float64."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import NegativeBinomial as TorchNegativeBinomial

from m1pipe.config import ModelConfig
from m1pipe.models.count_likelihoods import NegativeBinomial, ZeroInflatedNegativeBinomial
from m1pipe.models.likelihoods import (
    ABOUT_ZERO,
    HurdleGaussian,
    Likelihood,
    ZeroInflatedLogNormal,
    make_likelihood,
)
from m1pipe.models.vae import VAEModule, vae_loss

P = 3
ZEROS = ["hurdle_gaussian", "zero_inflated_log_normal"]
COUNTS = ["negative_binomial", "zero_inflated_negative_binomial"]
LOCATION = torch.tensor([2.0, 1.0, 3.0]).double()
SCALE = torch.tensor([1.5, 0.5, 1.0]).double()
SPREAD = torch.tensor([0.6, 1.0, 1.7]).double()


def _likelihood(name: str) -> Likelihood:
    likelihood = make_likelihood(name, P).double()
    if isinstance(likelihood, HurdleGaussian):
        likelihood.set_units(LOCATION, SCALE)
        likelihood.positive.set_scale(SPREAD)
    elif isinstance(likelihood, NegativeBinomial):
        likelihood.log_theta.data = torch.tensor([-0.5, 0.3, 2.0]).double()
    elif isinstance(likelihood, ZeroInflatedNegativeBinomial):
        likelihood.counts.log_theta.data = torch.tensor([-0.5, 0.3, 2.0]).double()
    return likelihood


def _eta(name: str, n: int = 1) -> Tensor:
    first = torch.tensor([0.3, -0.4, 1.1]).double()
    if name == "zero_inflated_log_normal":
        first = first + 1
    second = torch.tensor([0.5, -1.0, 2.0]).double()
    row = first if name == "negative_binomial" else torch.cat([first, second])
    return row.expand(n, -1)


def _units(x: Tensor) -> Tensor:
    return x * SCALE + LOCATION


def test_hurdle_gaussian_is_scipys_normal_where_present() -> None:
    likelihood, eta = _likelihood("hurdle_gaussian"), _eta("hurdle_gaussian", 4)
    x = torch.tensor([[0.7, 0.2, -1.0]]).double().expand(4, 3).clone()
    x[0] = -LOCATION / SCALE
    found = likelihood.log_prob(x, eta).detach()
    present = 1 / (1 + np.exp(-eta[0, P:].numpy()))
    np.testing.assert_allclose(found[0], np.log(1 - present), rtol=1e-9)
    expected = np.log(present) + stats.norm(eta[0, :P], SPREAD).logpdf(x[1])
    np.testing.assert_allclose(found[1], expected, rtol=1e-9)


def test_zero_inflated_log_normal_is_scipys_with_the_jacobian() -> None:
    """v = 2^u - 1 is log-normal: the density of x = (u - location) / scale by the chain rule."""
    likelihood, eta = _likelihood("zero_inflated_log_normal"), _eta("zero_inflated_log_normal")
    u = torch.tensor([[2.5, 0.4, 6.0]]).double()
    x = (u - LOCATION) / SCALE
    v = np.exp2(u[0].numpy()) - 1
    present = 1 / (1 + np.exp(-eta[0, P:].numpy()))
    of_v = stats.lognorm(SPREAD.numpy(), scale=np.exp(eta[0, :P].numpy())).logpdf(v)
    expected = np.log(present) + of_v + np.log(np.log(2) * (v + 1)) + np.log(SCALE.numpy())
    np.testing.assert_allclose(likelihood.log_prob(x, eta)[0].detach(), expected, rtol=1e-9)


def test_density_with_the_mass_at_zero_makes_one() -> None:
    likelihood, eta = _likelihood("zero_inflated_log_normal"), _eta("zero_inflated_log_normal")
    zero = -LOCATION / SCALE
    at_zero = likelihood.log_prob(zero[None], eta).exp()[0].detach()

    def density(value: float, j: int) -> float:
        x = zero.clone()
        x[j] = value
        return float(likelihood.log_prob(x[None], eta).exp()[0, j].detach())

    for j in range(P):
        start = float(zero[j]) + 2 * ABOUT_ZERO / float(SCALE[j])
        total, _ = integrate.quad(density, start, 40.0, args=(j,), limit=400)
        assert total + float(at_zero[j]) == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize("theta", [0.2, 1.0, 30.0])
def test_negative_binomial_is_scipys_and_torchs(theta: float) -> None:
    likelihood = NegativeBinomial(P).double()
    likelihood.log_theta.data.fill_(math.log(theta))
    mean = torch.tensor([[0.2, 3.0, 200.0]]).double()
    x = torch.tensor([[0.0, 5.0, 180.0]]).double()
    found = likelihood.log_prob(x, mean.log()).detach()
    expected = stats.nbinom(theta, theta / (theta + mean.numpy())).logpmf(x.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    torchs = TorchNegativeBinomial(theta, probs=mean / (mean + theta)).log_prob(x)
    torch.testing.assert_close(found, torchs)


def test_zero_inflation_adds_to_zero_alone() -> None:
    likelihood, eta = _likelihood(COUNTS[1]), _eta(COUNTS[1])
    assert isinstance(likelihood, ZeroInflatedNegativeBinomial)
    lost = torch.sigmoid(eta[:, P:])
    plain = likelihood.counts.log_prob
    zero, some = torch.zeros(1, P).double(), torch.full((1, P), 4.0).double()
    expected = lost + (1 - lost) * plain(zero, eta[:, :P]).exp()
    torch.testing.assert_close(likelihood.log_prob(zero, eta).exp(), expected)
    expected = (1 - lost) * plain(some, eta[:, :P]).exp()
    torch.testing.assert_close(likelihood.log_prob(some, eta).exp(), expected)


@pytest.mark.parametrize("name", ZEROS + COUNTS)
def test_samples_have_the_stated_mean_and_shape(name: str) -> None:
    likelihood, eta = _likelihood(name), _eta(name, 100_000)
    draws = likelihood.sample(eta, torch.Generator().manual_seed(0)).detach()
    assert draws.shape == (100_000, P)
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - likelihood.mean(eta[:1])[0]).abs() < 5 * error + 1e-3).all()
    if name in COUNTS:
        assert torch.equal(draws, draws.round())
        assert draws.min() == 0
    else:
        absent = (_units(draws).abs() < 1e-9).double().mean(0)
        torch.testing.assert_close(absent, 1 - torch.sigmoid(eta[0, P:]), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", COUNTS)
def test_samples_have_the_probabilities_of_the_law(name: str) -> None:
    likelihood, eta = _likelihood(name), _eta(name, 100_000)
    draws = likelihood.sample(eta, torch.Generator().manual_seed(1))
    for count in range(4):
        share = (draws == count).double().mean(0)
        expected = likelihood.log_prob(torch.full((1, P), float(count)).double(), eta[:1]).exp()[0]
        torch.testing.assert_close(share, expected.detach(), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_given_their_total_have_it_and_the_means(name: str) -> None:
    """Without noise beyond Poisson's they are multinomial, with its variance."""
    likelihood, eta = _likelihood(name), _eta(name, 20_000)
    counts = getattr(likelihood, "counts", likelihood)
    counts.set_theta(torch.full((P,), 1e9).double())
    eta = torch.cat([eta[:, :P], torch.full_like(eta[:, P:], -40.0)], 1)
    total = torch.full((len(eta), 1), 50.0).double()
    drawn = likelihood.sample_given_total(eta, total, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.sum(1, keepdim=True), total) and torch.equal(drawn, drawn.round())
    share = torch.softmax(eta[0, :P], 0)
    torch.testing.assert_close(drawn.mean(0), 50 * share, atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.var(0), 50 * share * (1 - share), atol=0, rtol=0.06)
    again = likelihood.sample_given_total(eta, total, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("factor", [0.01, 3.0, 1000.0])
def test_expected_logarithms_are_the_sums_over_all_counts(name: str, factor: float) -> None:
    likelihood, eta = _likelihood(name), _eta(name).clone()
    eta[:, :P] += torch.tensor([-2.0, 1.0, 3.0])
    x = torch.arange(3000).double()
    summed = [
        (likelihood.log_prob(x[:, None].expand(-1, P), eta)[:, j].exp() * torch.log1p(factor * x))
        .sum()
        .item()
        for j in range(P)
    ]
    found = likelihood.mean_log1p(eta, torch.tensor([[factor]]).double())
    np.testing.assert_allclose(found[0].detach(), summed, rtol=1e-3)


@pytest.mark.parametrize("name", ZEROS + COUNTS)
def test_samples_repeat_with_their_generator_and_leave_the_global_one_alone(name: str) -> None:
    likelihood, eta, before = _likelihood(name), _eta(name, 20), torch.get_rng_state()
    first = likelihood.sample(eta, torch.Generator().manual_seed(3))
    assert torch.equal(first, likelihood.sample(eta, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, likelihood.sample(eta, torch.Generator().manual_seed(4)))
    assert torch.equal(before, torch.get_rng_state())


def test_link_of_the_log_normal_law_is_near_the_mean() -> None:
    likelihood = _likelihood("zero_inflated_log_normal")
    assert isinstance(likelihood, ZeroInflatedLogNormal)
    mean = (torch.tensor([[2.0, 1.0, 4.0]]).double() - LOCATION) / SCALE
    assert (likelihood.mean(likelihood.link(mean)) - mean).abs().max() < 0.5


@pytest.mark.parametrize("name", ZEROS + COUNTS)
def test_models_descend_under_every_law(name: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(n_latent=2, hidden=(8,), likelihood=name, transform="none")
    module = VAEModule(5, config)
    rate = torch.exp(torch.randn(200, 1) + torch.linspace(-1, 2, 5))
    x = torch.poisson(rate) if name in COUNTS else torch.log2(1 + torch.poisson(rate))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = vae_loss(module, x, beta=1.0)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in module.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("name", COUNTS)
def test_expected_counts_sum_to_the_library(name: str) -> None:
    module = VAEModule(6, ModelConfig(n_latent=2, hidden=(8,), likelihood=name)).eval()
    library = torch.tensor([[100.0], [5000.0]])
    eta = module.decode(torch.randn(2, 2), None, library)
    torch.testing.assert_close(torch.exp(eta[:, :6]).sum(1, keepdim=True), library)
    x = torch.tensor([[1.0, 2, 3, 0, 0, 4]])
    torch.testing.assert_close(module.encode_mu(x), module.encode_mu(7 * x))
