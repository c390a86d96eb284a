"""An encoder of counts: dispersion and totals of planted data, R2 beside PCA's."""

import numpy as np
import pytest
import torch

from m1pipe.config import EncoderConfig
from m1pipe.encoder import Encoder, train_encoder
from m1pipe.encoder.drift import encode_with_drift
from m1pipe.encoder.prepare import fit_count_inputs
from m1pipe.io.reader import open_matrix
from m1pipe.models.count_likelihoods import CountInputs
from m1pipe.settings import build
from m1pipe.synthesis.latents import aggregated_posterior, draw_posterior
from m1pipe.synthesis.sample import decode_samples

N, P, THETA = 400, 60, 3.0


def planted(n: int, seed: int, factor: float) -> np.ndarray:
    """Counts of dispersion 1 / THETA about shares that one factor moves, of about 400 a sample."""
    rng = np.random.default_rng(seed)
    share = np.exp(
        np.linspace(-1.5, 1.5, P) + factor * np.outer(rng.normal(size=n), np.sin(range(P)))
    )
    mean = 400 * share / share.sum(1, keepdims=True)
    return rng.negative_binomial(THETA, THETA / (THETA + mean)).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> tuple[np.ndarray, Encoder]:
    X = planted(N, 0, 0.5)
    settings = {"likelihood": "negative_binomial", "n_latent": 2, "hidden": [16], "epochs": 60}
    data = open_matrix((X, [f"g{j}" for j in range(P)]))
    return X, train_encoder(data, build(EncoderConfig, {**settings, "lr": 0.003}))


def test_dispersion_starts_at_its_moments() -> None:
    """Without a factor these are those planted, and many constant genes are no division by 0."""
    X = np.concatenate([planted(4000, 1, 0.0), np.zeros((4000, 2), np.float32)], axis=1)
    inputs = CountInputs(P + 2)
    theta = fit_count_inputs(inputs, lambda: iter(np.array_split(X, 3)))
    assert float(theta[:P].median()) == pytest.approx(THETA, rel=0.05)
    assert torch.isfinite(theta).all() and (theta[P:] == 1).all()
    assert inputs.mean_counts[:P].numpy() == pytest.approx(X[:, :P].mean(0), rel=1e-5)


def test_generated_counts_spread_as_the_real_ones(trained: tuple[np.ndarray, Encoder]) -> None:
    X, encoder = trained
    likelihood = encoder.module.likelihood
    assert float(likelihood.theta.detach().median()) == pytest.approx(THETA, rel=0.25)
    posterior = aggregated_posterior(encoder, open_matrix((X, list(encoder.genes))))
    codes = np.zeros(3000, dtype=np.int64)
    Z = draw_posterior(posterior, codes, np.random.default_rng(0))
    made = np.concatenate([S for _, S in decode_samples(encoder, Z, codes, noise=True, seed=0)])
    assert (made == np.round(made)).all()
    assert made.sum(1).std() == pytest.approx(X.sum(1).std(), rel=0.1)
    assert np.median(made.var(0) / X.var(0)) == pytest.approx(1, abs=0.15)


def test_r2_is_of_expected_logarithms_and_near_pcas(trained: tuple[np.ndarray, Encoder]) -> None:
    _, encoder = trained
    found = encoder.summary
    assert 0.5 * found["pca_r2"] < found["r2"] < found["pca_r2"] + 0.05
    new = planted(300, 2, 0.5)
    Z = encoder.encode_array(new)
    seen, fitted = encoder.inputs(new), encoder.expected_inputs(Z, new)
    r2 = 1 - ((seen - fitted) ** 2).sum() / ((seen - encoder.pca.mean) ** 2).sum()
    assert r2 == pytest.approx(found["r2"], abs=0.1)
    naive = encoder.inputs(encoder.decode(Z, None, new.sum(1)))
    assert ((seen - fitted) ** 2).sum() < 0.9 * ((seen - naive) ** 2).sum()
    _, drift = encode_with_drift(encoder, (new, list(encoder.genes)))
    assert drift.beyond < 0.1
