"""Log-likelihoods on one scale: against closed forms, and models against themselves."""

from collections.abc import Callable
from dataclasses import replace

import anndata
import numpy as np
import pytest
from scipy import stats

from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.encoder import train_encoder
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.synthesis.latents import (
    aggregated_posterior,
    draw_mixtures,
    fit_mixtures,
    prior_mixtures,
)
from m1pipe.synthesis.likelihood import compare_likelihoods, held_out_likelihood
from m1pipe.synthesis.sample import decode_samples

Make = Callable[..., anndata.AnnData]
CONFIG = EncoderConfig(
    model=ModelConfig(n_latent=3, hidden=(16,)), training=TrainingConfig(epochs=8, seed=1)
)


def _with(**model: object) -> EncoderConfig:
    return replace(CONFIG, model=replace(CONFIG.model, **model))  # type: ignore[arg-type]


def test_a_linear_model_has_the_likelihood_of_its_covariance(expression: Make) -> None:
    """A decoder that is linear in z makes a normal law, whose density scipy has."""
    data, fresh = expression(300, 12), expression(40, 12, seed=1)
    still = replace(CONFIG, training=replace(CONFIG.training, lr=1e-12, epochs=1))
    encoder = train_encoder(data, still)
    module, scaler = encoder.module, encoder.scaler
    assert module.skip_decoder is not None
    W = module.skip_decoder.weight.detach().numpy()
    psi = np.exp(2 * module.likelihood.log_scale().detach().numpy())  # type: ignore[union-attr]
    law = stats.multivariate_normal(module.skip_decoder.bias.detach(), W @ W.T + np.diag(psi))
    X = np.asarray(fresh.X)
    expected = law.logpdf(scaler.apply(X)) - np.log(scaler.scale).sum()
    found = held_out_likelihood(encoder, fresh, draws=256)
    np.testing.assert_allclose(found, expected, atol=0.6)
    assert found.mean() / 12 == pytest.approx(expected.mean() / 12, abs=0.02)


def test_zeros_are_everything_below(profiles: Make) -> None:
    """What is generated below zero becomes zero: its probability is that of all of it."""
    data, fresh = profiles(300, 20), profiles(60, 20, seed=1)
    assert (np.asarray(fresh.X) == 0).mean() > 0.02

    def longer(**model: object) -> EncoderConfig:
        training = TrainingConfig(epochs=120, lr=5e-3, kl_warmup=0.0)
        return replace(_with(**model), training=training)

    found = {
        (law, transform): held_out_likelihood(
            train_encoder(data, longer(likelihood=law, transform=transform)), fresh, draws=16
        ).mean()
        / 20
        for law, transform in [
            ("gaussian", "standardize"),
            ("gaussian", "normal_score"),
            ("hurdle_gaussian", "standardize"),
            ("zero_inflated_log_normal", "none"),
        ]
    }
    values = np.array(list(found.values()))
    assert np.isfinite(values).all()
    assert np.ptp(values) < 1.5
    wrong = np.asarray(fresh.X)[:, ::-1]
    shuffled = anndata.AnnData(wrong.copy(), fresh.obs, fresh.var, uns=dict(fresh.uns))
    encoder = train_encoder(data, CONFIG)
    assert held_out_likelihood(encoder, shuffled, draws=4).mean() / 20 < values.min()


@pytest.fixture(scope="module")
def counts(expression: Make) -> tuple[anndata.AnnData, anndata.AnnData]:
    return tuple(expression(300, 15, seed=s, counts=True) for s in (0, 1))  # type: ignore[return-value]


def test_counts_are_one_scale_for_laws_of_counts_and_of_logarithms(
    counts: tuple[anndata.AnnData, anndata.AnnData],
) -> None:
    data, fresh = counts
    X = np.asarray(data.X)
    logs = np.log2(1 + 1e4 * X / X.sum(axis=1, keepdims=True)).astype(np.float32)
    uns = {"units": "log2_normalized1", "target_sum": 1e4}
    logged = anndata.AnnData(logs, data.obs, data.var, uns=uns)
    models = {
        "log": train_encoder(logged, CONFIG),
        "nb": train_encoder(data, _with(likelihood="negative_binomial", transform="none")),
    }
    found = compare_likelihoods(models, fresh)
    assert found.index.tolist() == fresh.obs_names.tolist()
    Y = np.asarray(fresh.X)
    poisson = stats.poisson(Y.sum(axis=1, keepdims=True) * X.sum(axis=0) / X.sum()).logpmf(Y)
    for _, nats in found.items():
        assert nats.max() < 0
        assert nats.mean() / 15 > poisson.mean() + 5 * nats.sem() / 15
    assert found["log"].mean() / 15 == pytest.approx(found["nb"].mean() / 15, abs=0.6)


def test_generated_counts_are_whole_and_have_the_depth_of_the_data(
    counts: tuple[anndata.AnnData, anndata.AnnData],
) -> None:

    data, _ = counts
    encoder = train_encoder(data, _with(likelihood="negative_binomial", transform="none"))
    codes = np.zeros(400, dtype=np.int64)
    rng = np.random.default_rng(0)
    fitted = fit_mixtures(aggregated_posterior(encoder, open_matrix(data)), 0, seed=0)
    real = np.log(np.asarray(data.X).sum(axis=1))
    for law in (fitted, prior_mixtures(encoder)):
        Z = draw_mixtures(law, codes, rng)
        X = np.concatenate([x for _, x in decode_samples(encoder, Z, codes, noise=True, seed=0)])
        np.testing.assert_array_equal(X, np.round(X))
        made = np.log(X.sum(axis=1))
        assert made.mean() == pytest.approx(real.mean(), abs=0.15)
        assert made.std() == pytest.approx(real.std(), rel=0.3)


def test_what_cannot_be_compared_is_refused(expression: Make) -> None:
    data = expression(60, 8)
    encoder = train_encoder(data, _with(likelihood="bernoulli", transform="minmax"))
    with pytest.raises(InputError, match="found bernoulli"):
        held_out_likelihood(encoder, data)
    renamed = data.copy()
    renamed.var_names = [f"other {name}" for name in data.var_names]
    plain, other = train_encoder(data, CONFIG), train_encoder(renamed, CONFIG)
    with pytest.raises(InputError, match="b: expected the genes of the first model"):
        compare_likelihoods({"a": plain, "b": other}, data)
    with pytest.raises(InputError, match="found a plain autoencoder"):
        held_out_likelihood(train_encoder(data, _with(beta=0.0)), data)
    data.uns = {"units": "zscore"}
    with pytest.raises(InputError, match=r"b: expected log2_normalized1.*found zscore"):
        compare_likelihoods({"a": plain, "b": train_encoder(data, CONFIG)}, data)
