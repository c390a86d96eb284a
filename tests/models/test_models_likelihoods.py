"""Every likelihood against torch.distributions, in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import Normal

from m1pipe.models.likelihoods import (
    SIGMA_BOUNDS,
    Gaussian,
    GaussianNegativeLogLikelihood,
    LogNormal,
    make_likelihood,
)

N, P = 40, 7
NAMES = ["gaussian", "gaussian_shared", "gaussian_unit", "log_normal", "bernoulli"]


@pytest.fixture
def eta() -> Tensor:
    return torch.randn(N, P, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _levels(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N, P, dtype=torch.float64, generator=generator)
    if name == "log_normal":
        return x.exp().where(x > -1, torch.zeros(()).double())
    return torch.sigmoid(x) if name == "bernoulli" else x


@pytest.mark.parametrize(("name", "n_scales"), [("gaussian", P), ("gaussian_shared", 1)])
def test_gaussian_matches_torch(name: str, n_scales: int, eta: Tensor) -> None:
    likelihood = make_likelihood(name, P).double()
    scale = torch.linspace(0.4, 2.5, n_scales, dtype=torch.float64)
    likelihood.set_scale(scale)
    x = _levels(name)
    torch.testing.assert_close(likelihood.log_scale().exp(), scale, rtol=1e-12, atol=0)
    expected = Normal(eta, scale).log_prob(x)
    torch.testing.assert_close(likelihood.log_prob(x, eta), expected, rtol=1e-10, atol=1e-10)
    assert sum(p.numel() for p in likelihood.parameters()) == n_scales


@pytest.mark.parametrize("name", ["gaussian", "gaussian_shared", "gaussian_unit"])
def test_gaussian_of_a_sample_is_the_sum_over_its_genes(name: str, eta: Tensor) -> None:
    likelihood, x = make_likelihood(name, P).double(), _levels(name)
    likelihood.set_scale(torch.linspace(0.4, 2.5, P if name == "gaussian" else 1).double())
    found, expected = (
        likelihood.negative_log_likelihood(x, eta),
        -likelihood.log_prob(x, eta).sum(1),
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_scales", [P, 1])
def test_closed_gradients_of_the_gaussian_are_those_of_its_density(
    n_scales: int, eta: Tensor
) -> None:
    x = _levels("gaussian").requires_grad_()
    scale = torch.linspace(-0.9, 0.9, n_scales, dtype=torch.float64, requires_grad=True)
    mean = eta.clone().requires_grad_()

    def found(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return GaussianNegativeLogLikelihood.apply(x, mean, scale.expand(P))

    assert torch.autograd.gradcheck(found, (x, mean, scale))


def test_several_gaussians_at_once_equal_each_alone(eta: Tensor) -> None:
    likelihood, x = make_likelihood("gaussian", P).double(), _levels("gaussian")
    found = torch.vmap(likelihood.negative_log_likelihood)(
        torch.stack([x, 2 * x]), torch.stack([eta, eta])
    )
    expected = torch.stack(
        [likelihood.negative_log_likelihood(x, eta), likelihood.negative_log_likelihood(2 * x, eta)]
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_unit_gaussian_matches_torch_and_learns_nothing(eta: Tensor) -> None:
    likelihood, x = make_likelihood("gaussian_unit", P), _levels("gaussian_unit")
    expected = Normal(eta, 1.0).log_prob(x)
    torch.testing.assert_close(likelihood.log_prob(x, eta), expected, rtol=1e-10, atol=1e-10)
    assert list(likelihood.parameters()) == []


def test_log_normal_matches_torch(eta: Tensor) -> None:
    likelihood, x = make_likelihood("log_normal", P), _levels("log_normal")
    assert isinstance(likelihood, LogNormal) and (x == 0).any()
    expected = TorchLogNormal(eta, 1.0).log_prob(x + likelihood.pseudocount)
    torch.testing.assert_close(likelihood.log_prob(x, eta), expected, rtol=1e-10, atol=1e-10)


def test_bernoulli_matches_torch(eta: Tensor) -> None:
    likelihood, x = make_likelihood("bernoulli", P), _levels("bernoulli")
    expected = TorchBernoulli(logits=eta, validate_args=False).log_prob(x)
    torch.testing.assert_close(likelihood.log_prob(x, eta), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_stated_mean(name: str) -> None:
    likelihood = make_likelihood(name, 3)
    eta = torch.tensor([[-0.5, 0.0, 0.7]]).expand(200_000, 3)
    draws = likelihood.sample(eta, torch.Generator().manual_seed(0))
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - likelihood.mean(eta[:1])[0]).abs() < 5 * error).all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_repeat_with_their_generator_and_leave_the_global_one_alone(name: str) -> None:
    likelihood, eta = make_likelihood(name, 3), torch.zeros(20, 3)
    before = torch.get_rng_state()
    first = likelihood.sample(eta, torch.Generator().manual_seed(3))
    assert torch.equal(first, likelihood.sample(eta, torch.Generator().manual_seed(3)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_link_is_the_inverse_of_the_mean(name: str) -> None:
    likelihood = make_likelihood(name, 3)
    mean = torch.tensor([[0.1, 0.5, 0.9]])
    torch.testing.assert_close(likelihood.mean(likelihood.link(mean)), mean)


def test_learned_scales_stay_in_bounds_and_keep_a_gradient() -> None:
    likelihood = Gaussian(2)
    likelihood.set_scale(torch.tensor([1e-6, 1e6]))
    assert (
        (likelihood.log_scale().exp() > SIGMA_BOUNDS[0]) & (likelihood.log_scale().exp() < 4.0)
    ).all()
    x = torch.tensor([[3.0, 0.1]])
    (-likelihood.log_prob(x, torch.zeros(1, 2))).sum().backward()
    gradient = likelihood.raw_scale.grad
    assert gradient is not None and gradient[0] < 0 < gradient[1]


def test_unknown_likelihood_is_refused() -> None:
    with pytest.raises(ValueError, match="no likelihood is named 'poisson'"):
        make_likelihood("poisson", 3)
