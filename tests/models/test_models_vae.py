import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from m1pipe.config import EncoderConfig, ModelConfig
from m1pipe.config.presets import preset_options
from m1pipe.models.vae import (
    PosteriorNoise,
    VAEModule,
    decode_mean,
    default_widths,
    encode_mean,
    initialize_output_bias,
    kl_per_unit,
    vae_loss,
)
from m1pipe.settings import build

P, K = 30, 4


def _module(**settings: object) -> VAEModule:
    torch.manual_seed(0)
    return VAEModule(P, ModelConfig(**{"n_latent": K, "hidden": (16,), **settings}))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(20, P, generator=torch.Generator().manual_seed(1))


def _preset(name: str) -> ModelConfig:
    return build(EncoderConfig, preset_options(name)).model


def test_notebook_preset_has_the_published_number_of_parameters() -> None:
    assert VAEModule(500, _preset("notebook")).n_parameters == 347_316


@pytest.mark.parametrize("name", ["m1", "notebook", "vaexprs", "dee2", "overview"])
def test_presets_encode_and_decode(name: str) -> None:
    module, x = VAEModule(11, _preset(name)), torch.rand(5, 11)
    terms = vae_loss(module, x, beta=module.config.beta)
    assert terms["loss"].shape == (5,) and torch.isfinite(terms["loss"]).all()
    reconstruction = decode_mean(module, encode_mean(module, x))
    assert reconstruction.shape == (5, 11)


def test_dee2_keeps_its_relu_and_sigmoid() -> None:
    module, x = VAEModule(11, _preset("dee2")), torch.randn(5, 11)
    latents = encode_mean(module, x)
    assert (latents >= 0).all() and (latents == 0).any()
    levels = decode_mean(module, latents)
    assert ((levels > 0) & (levels < 1)).all()


def test_kl_matches_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(2)
    mu, logvar = torch.randn(2, 50, K, dtype=torch.float64, generator=generator)
    posterior = Independent(Normal(mu, torch.exp(0.5 * logvar)), 1)
    prior = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    expected = kl_divergence(posterior, prior)
    torch.testing.assert_close(kl_per_unit(mu, logvar).sum(1), expected, rtol=1e-10, atol=1e-10)
    assert (kl_per_unit(mu, logvar) >= 0).all()
    assert kl_per_unit(torch.zeros(1, K), torch.zeros(1, K)).sum().item() == 0.0


def test_kl_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        kl_per_unit(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize("linear_skip", [False, True])
def test_mu_and_logvar_are_linear_in_the_last_hidden_layer(linear_skip: bool) -> None:
    """The original put a ReLU on both: sigma >= 1, and latents that never move."""
    module = _module(linear_skip=linear_skip, batch_norm=False).eval()
    torch.nn.init.normal_(module.mu_head.weight)
    x = torch.randn(500, P)
    mu, logvar = module.encode(x)
    assert (mu < 0).any(0).all() and (mu > 0).any(0).all()
    assert (logvar < 0).any(0).all()
    h = module.encoder(x)
    expected = h @ module.mu_head.weight.T + module.mu_head.bias
    if module.skip_encoder is not None:
        expected = expected + x @ module.skip_encoder.weight.T + module.skip_encoder.bias
    torch.testing.assert_close(mu, expected)


def test_logvar_is_clamped() -> None:
    module = _module(batch_norm=False)
    module.logvar_head.bias.data.fill_(100.0)
    assert module.encode(torch.randn(3, P))[1].max().item() == 4.0


def test_beta_zero_is_the_plain_autoencoder(x: Tensor) -> None:
    module = _module(beta=0.0)
    generator = torch.Generator().manual_seed(5)
    before, before_global = generator.get_state(), torch.get_rng_state()
    terms = vae_loss(module, x, beta=0.0, noise=PosteriorNoise(generator))
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), before_global)
    terms["loss"].mean().backward()
    assert module.logvar_head.weight.grad is None and module.logvar_head.bias.grad is None
    assert module.mu_head.weight.grad is not None
    eta = module.decode(module.encode_mu(x))
    expected = -module.likelihood.log_prob(x, eta).sum(1)
    torch.testing.assert_close(terms["loss"], expected)
    assert (terms["kl"] == 0).all()


def test_a_held_pca_is_not_trained_and_counted_apart() -> None:
    held, plain = _module(hidden=(), decoder_hidden=(8,)), _module(linear_skip=False)
    assert held.n_held == 2 * P * K + P + K + P  # both maps with their biases, and the noise
    assert held.n_parameters == 2 * (P * K + K) + (K * 8 + 8) + 2 * 8 + (8 * P + P)
    assert plain.n_held == 0
    x = torch.randn(20, P)
    vae_loss(held, x, beta=1.0)["loss"].mean().backward()
    assert held.skip_encoder.weight.grad is None and held.skip_decoder.weight.grad is None
    assert held.likelihood.raw_scale.grad is None


@pytest.mark.parametrize("linear_skip", [False, True])
@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_shared", "bernoulli"])
def test_every_parameter_gets_a_gradient_at_beta_one(likelihood: str, linear_skip: bool) -> None:
    module = _module(likelihood=likelihood, linear_skip=linear_skip)
    x = torch.rand(20, P)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    for _ in range(2):  # networks that start at zero let the gradient through from the second step
        optimizer.zero_grad()
        vae_loss(module, x, beta=1.0)["loss"].mean().backward()
        optimizer.step()
    # a bias in front of batch norm is taken out again by it, up to rounding
    silent = {"encoder.0.bias", "decoder.0.bias"}
    trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    assert len(trained) > 10
    for name, parameter in trained:
        assert parameter.grad is not None, name
        assert name in silent or parameter.grad.abs().max() > 1e-7, name


def test_losses_sum_over_genes_and_are_per_sample(x: Tensor) -> None:
    module = _module(likelihood="gaussian_unit").eval()
    terms = vae_loss(module, x, beta=0.5, noise=PosteriorNoise(torch.Generator().manual_seed(3)))
    mu, logvar = module.encode(x)
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(3))
    eta = module.decode(mu + torch.exp(0.5 * logvar) * noise)
    by_hand = -Normal(eta, 1.0).log_prob(x)
    assert terms["reconstruction"].shape == (20,)
    torch.testing.assert_close(terms["reconstruction"], by_hand.sum(1))
    torch.testing.assert_close(terms["kl"], kl_per_unit(mu, logvar).sum(1))
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.5 * terms["kl"])


def test_free_bits_bound_each_unit_from_below(x: Tensor) -> None:
    plain, free = _module(), _module(free_bits=0.25)
    free.load_state_dict(plain.state_dict())
    a = vae_loss(plain.eval(), x, beta=1.0, noise=PosteriorNoise(torch.Generator().manual_seed(3)))
    b = vae_loss(free.eval(), x, beta=1.0, noise=PosteriorNoise(torch.Generator().manual_seed(3)))
    units = kl_per_unit(*plain.encode(x))
    assert (units < 0.25).any() and (units > 0.25).any()
    torch.testing.assert_close(a["kl"], b["kl"])
    gain = units.clamp_min(0.25).sum(1) - units.sum(1)
    torch.testing.assert_close(b["loss"] - a["loss"], gain, rtol=1e-3, atol=1e-3)


def test_encoding_and_decoding_are_in_evaluation_mode(x: Tensor) -> None:
    module = _module(dropout=0.5, linear_skip=False).train()
    vae_loss(module, x, beta=1.0)
    statistics = module.encoder[1].running_mean.clone()
    latents = encode_mean(module, x)
    assert torch.equal(latents, encode_mean(module, x))
    assert torch.equal(decode_mean(module, latents), decode_mean(module, latents))
    assert torch.equal(module.encoder[1].running_mean, statistics)
    assert module.training and not latents.requires_grad
    one_by_one = torch.cat([encode_mean(module, row[None]) for row in x])
    torch.testing.assert_close(one_by_one, latents)


def test_a_training_batch_of_one_sample_works(x: Tensor) -> None:
    module = _module(dropout=0.2).train()
    loss = vae_loss(module, x[:1], beta=1.0)["loss"].mean()
    loss.backward()
    assert torch.isfinite(loss)


def test_output_starts_at_the_mean() -> None:
    x = torch.rand(20, P)
    for likelihood in ("gaussian", "bernoulli"):
        module = _module(likelihood=likelihood, hidden=(), linear_skip=False)
        initialize_output_bias(module, x.mean(0))
        at_zero = decode_mean(module, torch.zeros(1, K))[0]
        torch.testing.assert_close(at_zero, x.mean(0))


def test_widths_may_be_given_beside_the_configuration() -> None:
    with pytest.raises(ValueError, match="hidden: expected layer widths"):
        VAEModule(P, ModelConfig())
    module = VAEModule(P, ModelConfig(decoder_hidden=(9,)), hidden=(8, 7))
    assert module.encoder.n_out == 7 and module.decoder.n_out == 9


@pytest.mark.parametrize(
    ("settings", "n_samples", "widths"),
    [
        ({}, 499, ((), (128,))),
        ({}, 500, ((), (512,))),
        ({}, 999, ((), (512,))),
        ({}, 1000, ((512,), (512,))),
        ({"hidden": (8, 4)}, 500, ((8, 4), (4, 8))),
        ({"decoder_hidden": (9,)}, 500, ((), (9,))),
        ({"linear_skip": False}, 1999, ((128,), (128,))),
        ({"likelihood": "bernoulli"}, 2000, ((512,), (512,))),
    ],
)
def test_open_widths_follow_the_training_set(
    settings: dict[str, object], n_samples: int, widths: tuple[tuple[int, ...], ...]
) -> None:
    assert default_widths(ModelConfig(**settings), n_samples) == widths
