import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA, FactorAnalysis

from m1pipe.config import ModelConfig
from m1pipe.models.pca_start import factor_posterior, initialize_from_pca, noise_variance
from m1pipe.models.vae import VAEModule, decode_mean, encode_mean, vae_loss

N, P, K = 400, 25, 3


@pytest.fixture
def x() -> torch.Tensor:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, K)) @ generator.normal(size=(K, P)) * 2
    return torch.tensor(x + generator.normal(size=(N, P)) + 5, dtype=torch.float32)


def _started(x: torch.Tensor, residual: torch.Tensor | float | None = None, **settings: object):
    pca = PCA(K).fit(x.numpy())
    module = VAEModule(P, ModelConfig(n_latent=K, hidden=(8,), **settings))
    axes, spread = torch.tensor(pca.components_), torch.tensor(pca.explained_variance_)
    if residual is None:
        residual = float(pca.noise_variance_)
    initialize_from_pca(module, axes, spread, residual, mean=torch.tensor(pca.mean_))
    return module, pca


def test_autoencoder_starts_as_the_pca(x: torch.Tensor) -> None:
    module, pca = _started(x, beta=0.0)
    latents = encode_mean(module, x)
    torch.testing.assert_close(latents.std(0), torch.ones(K), rtol=2e-3, atol=0)
    expected = pca.inverse_transform(pca.transform(x.numpy()))
    np.testing.assert_allclose(decode_mean(module, latents).numpy(), expected, atol=1e-4)


def test_vae_starts_at_the_posterior_of_probabilistic_pca(x: torch.Tensor) -> None:
    module, pca = _started(x, likelihood="gaussian_shared")
    noise = pca.noise_variance_
    loadings = pca.components_.T * np.sqrt(pca.explained_variance_ - noise)
    inner = np.linalg.inv(loadings.T @ loadings + noise * np.eye(K))
    expected = (x.numpy() - pca.mean_) @ loadings @ inner
    mu, logvar = (value.detach().numpy() for value in module.eval().encode(x))
    np.testing.assert_allclose(np.abs(mu), np.abs(expected), atol=1e-4)
    np.testing.assert_allclose(np.exp(logvar[0]), noise * np.diag(inner), rtol=1e-4)
    rebuilt = decode_mean(module, torch.tensor(mu)).numpy()
    np.testing.assert_allclose(rebuilt, expected @ loadings.T + pca.mean_, atol=1e-3)
    scale = module.likelihood.log_scale().exp().item()
    assert scale == pytest.approx(np.sqrt(noise), rel=1e-3)


def test_factor_posterior_with_unequal_noise_matches_sklearn() -> None:
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(P, K, generator=generator, dtype=torch.float64))[0].T
    spread = torch.tensor([9.0, 6.0, 4.0], dtype=torch.float64)
    psi = torch.linspace(0.3, 2.0, P, dtype=torch.float64)
    x = torch.randn(10, P, generator=generator, dtype=torch.float64)
    weight, loadings, logvar = factor_posterior(axes, spread, psi)
    oracle = FactorAnalysis(K)
    oracle.components_, oracle.noise_variance_ = loadings.T.numpy(), psi.numpy()
    oracle.mean_ = np.zeros(P)
    np.testing.assert_allclose((x @ weight.T).numpy(), oracle.transform(x.numpy()), atol=1e-10)
    covariance = torch.linalg.inv(torch.eye(K) + loadings.T @ (loadings / psi[:, None]))
    np.testing.assert_allclose(torch.diag(logvar.exp()).numpy(), covariance.numpy(), atol=1e-10)
    assert subspace_angles(loadings.numpy(), axes.T.numpy()).max() < 1e-7


def test_noise_is_that_of_rows_not_fitted() -> None:
    """Many components of few rows leave far less than new rows will show."""
    generator = np.random.default_rng(3)
    scale = generator.uniform(0.5, 1.5, size=60)
    train, new = (generator.normal(size=(n, 60)) * scale for n in (100, 4000))
    pca = PCA(30).fit(train)
    left = train - pca.inverse_transform(pca.transform(train))
    residual, variance = (torch.tensor(values.var(0)) for values in (left, train))
    found = noise_variance(residual, variance, n_samples=100, n_components=30)
    unseen = new - pca.inverse_transform(pca.transform(new))
    fitted, expected = residual.mean().item(), (unseen**2).mean()
    assert fitted < 0.75 * expected
    assert abs(found.mean().item() - expected) < 0.5 * abs(fitted - expected)


def test_noise_of_a_constant_gene_is_drawn_to_the_mean_variance() -> None:
    variance = torch.tensor([2.0, 0.0])
    found = noise_variance(torch.zeros(2), variance, n_samples=90, n_components=1)
    torch.testing.assert_close(found, torch.full((2,), 10 * 1.0 / 100))
    assert noise_variance(torch.zeros(2), variance, n_samples=10**9, n_components=1).min() > 0


def test_start_is_close_to_the_exact_likelihood_bound(x: torch.Tensor) -> None:
    """At the exact posterior the bound is tight: it equals the Gaussian log-likelihood."""
    module, pca = _started(x, likelihood="gaussian_shared")
    with torch.no_grad():
        terms = vae_loss(module.eval(), x.repeat(50, 1), beta=1.0)
    assert terms["loss"].mean().item() == pytest.approx(-pca.score(x.numpy()), rel=2e-3)


def test_fewer_components_than_latents_leave_the_rest_at_zero(x: torch.Tensor) -> None:
    module = VAEModule(P, ModelConfig(n_latent=K + 2, hidden=(8,)))
    axes = torch.eye(P)[:K]
    initialize_from_pca(module, axes, torch.full((K,), 4.0), 1.0)
    mu, logvar = module.eval().encode(x)
    assert (mu[:, K:] == 0).all() and (logvar[:, K:] == 0).all()
    assert (mu[:, :K] != 0).any()


@pytest.mark.parametrize(
    "settings", [{"linear_skip": False}, {"likelihood": "bernoulli"}, {"latent_activation": "relu"}]
)
def test_other_models_are_refused(settings: dict[str, object]) -> None:
    config = ModelConfig(hidden=(8,), n_latent=K, **settings)
    assert ModelConfig().starts_at_pca and not config.starts_at_pca
    with pytest.raises(ValueError, match="a PCA start needs"):
        initialize_from_pca(VAEModule(P, config), torch.eye(P)[:K], torch.ones(K), 1.0)
