"""Latents, levels and their accounts, without files."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture

from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.encoder import Encoder, train_encoder
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.synthesis.latents import (
    AggregatedPosterior,
    aggregated_posterior,
    draw_mixtures,
    draw_posterior,
    fit_mixtures,
    load_mixtures,
    prior_mixtures,
    save_mixtures,
)
from m1pipe.synthesis.mixture import Mixture, fit_mixture
from m1pipe.synthesis.sample import (
    allot,
    calibrated_samples,
    closure,
    deal,
    decode_samples,
    noise_factor,
    totals,
)

CONFIG = EncoderConfig(
    model=ModelConfig(n_latent=4, hidden=(16,), dropout=0.3),
    training=TrainingConfig(epochs=6, seed=3),
)


@pytest.fixture(scope="module")
def data(profiles: Callable[..., anndata.AnnData]) -> anndata.AnnData:
    made = profiles(n=300)
    made.obs["kind"] = np.where(np.arange(300) % 3 == 0, "few", "many")
    return made


@pytest.fixture(scope="module")
def encoder(data: anndata.AnnData) -> Encoder:
    return train_encoder(data, CONFIG)


@pytest.fixture(scope="module")
def conditional(data: anndata.AnnData) -> Encoder:
    told = replace(CONFIG, model=replace(CONFIG.model, condition="kind"))
    return train_encoder(data, told)


def _clusters(n: int, rng: np.random.Generator) -> np.ndarray:
    centres = np.array([[4.0, 0, 0], [-4, 0, 0], [0, 5, 0]])
    return centres[rng.integers(0, 3, n)] + rng.normal(size=(n, 3)) * [1, 0.3, 0.6]


def test_bic_finds_the_planted_clusters_and_their_density() -> None:
    rng = np.random.default_rng(0)
    Z, fresh = _clusters(900, rng), _clusters(900, rng)
    found = fit_mixture(Z, seed=0)
    assert found.n_components == 3
    assert found.kind in ("tied", "diag")
    oracle = GaussianMixture(3, covariance_type="tied", random_state=0).fit(Z)
    assert found.log_density(fresh).mean() == pytest.approx(oracle.score(fresh), abs=0.03)
    drawn = found.sample(4000, rng)
    # Kolmogorov's distance at one in 3,000, of the rows fitted to, of fresh ones, and of the draws
    bound = 2.1 * np.sqrt(1 / 900 + 1 / 900 + 1 / 4000)
    assert all(stats.ks_2samp(drawn[:, j], fresh[:, j]).statistic < bound for j in range(3))


def test_log_density_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    factor = np.tril(rng.normal(size=(2, 2))) + 2 * np.eye(2)
    mixture = Mixture(
        "full", np.array([0.3, 0.7]), np.array([[0.0, 1], [2, 3]]), np.stack([factor, np.eye(2)])
    )
    Z = rng.normal(size=(20, 2))
    expected = np.log(
        0.3 * stats.multivariate_normal([0, 1], factor @ factor.T).pdf(Z)
        + 0.7 * stats.multivariate_normal([2, 3], np.eye(2)).pdf(Z)
    )
    np.testing.assert_allclose(mixture.log_density(Z), expected, rtol=1e-9)


def test_few_rows_do_not_buy_parameters() -> None:
    rng = np.random.default_rng(2)
    assert fit_mixture(rng.normal(size=(400, 3)), seed=0).kind == "standard"
    shared = fit_mixture(_clusters(900, rng), seed=0)
    assert fit_mixture(_clusters(12, rng), seed=0, shared=shared).kind == "shared"
    wide = fit_mixture(rng.normal(size=(40, 32)) @ rng.normal(size=(32, 32)), seed=0)
    assert np.linalg.svd(wide.factors[0], compute_uv=False).min() > 0.1


def test_posterior_is_that_of_the_training_rows(encoder: Encoder, data: anndata.AnnData) -> None:
    found = aggregated_posterior(encoder, open_matrix(data[::-1]))
    rows = data[list(encoder.samples)]
    np.testing.assert_allclose(found.mu, encoder.transform(rows), atol=1e-5)
    x = torch.from_numpy(encoder.scaler.apply(np.asarray(rows.X)))
    with torch.no_grad():
        logvar = encoder.module.encode(x)[1]
    sd = np.exp(0.5 * logvar.numpy()) * encoder.latent_scale
    np.testing.assert_allclose(found.sd, sd, rtol=1e-5)
    with pytest.raises(InputError, match=r"trained on; \d+ are not there"):
        aggregated_posterior(encoder, open_matrix(data[:100]))


def test_each_latent_has_noise_of_its_own(encoder: Encoder, data: anndata.AnnData) -> None:
    """VAExprs drew one number for all latents of a sample, and exp(log variance) as spread."""
    posterior = aggregated_posterior(encoder, open_matrix(data))
    rows = np.zeros(4000, dtype=np.int64)
    drawn = posterior.draw(rows, np.random.default_rng(0))
    noise = (drawn - posterior.mu[0]) / posterior.sd[0]
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.1
    np.testing.assert_allclose(noise.std(axis=0), 1, atol=0.05)
    one_for_all = np.random.default_rng(0).standard_normal((4000, 1)) * np.ones(4)
    assert np.corrcoef(one_for_all.T).min() > 0.99
    assert not np.allclose(posterior.sd[0], posterior.sd[0] ** 2, rtol=0.2)


def test_mixture_covers_what_the_prior_misses(encoder: Encoder) -> None:
    rng = np.random.default_rng(1)
    posterior = AggregatedPosterior(
        _clusters(600, rng), np.full((600, 3), 0.2), np.zeros(600, dtype=int)
    )
    mixtures = fit_mixtures(posterior, 0, seed=0)
    codes = np.zeros(600, dtype=np.int64)
    fresh = _clusters(600, rng)[:, 0]
    prior = prior_mixtures(replace(encoder, latent_scale=np.ones(4, dtype=np.float32)))
    ks = [
        stats.ks_2samp(draw_mixtures(which, codes, rng)[:, 0], fresh).statistic
        for which in (mixtures, prior)
    ]
    assert ks[0] < 2.1 * np.sqrt(3 / 600) < 0.2 < ks[1]  # Kolmogorov's, of three such samples


def test_classes_have_mixtures_of_their_own() -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat([0, 1], 300)
    mu = rng.normal(size=(600, 2)) + np.where(codes == 0, -5, 5)[:, None]
    posterior = AggregatedPosterior(mu, np.full_like(mu, 0.1), codes)
    mixtures = fit_mixtures(posterior, 2, seed=0)
    wanted = np.array([0] * 40 + [1] * 60)
    for Z in (draw_mixtures(mixtures, wanted, rng), draw_posterior(posterior, wanted, rng)):
        assert (np.sign(Z[:, 0]) == np.where(wanted == 0, -1, 1)).all()


def test_mixtures_go_to_a_file_and_back_with_its_model_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    mixtures = fit_mixtures(
        AggregatedPosterior(_clusters(300, rng), np.zeros((300, 3)), np.zeros(300, int)), 0, seed=0
    )
    path = tmp_path / "mixture.safetensors"
    assert load_mixtures(path, model="a") is None
    save_mixtures(mixtures, path, model="a")
    again = load_mixtures(path, model="a")
    assert again is not None
    assert [m.kind for m in again] == [m.kind for m in mixtures]
    np.testing.assert_array_equal(again[0].factors, mixtures[0].factors)
    assert load_mixtures(path, model="b") is None
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="expected mixtures written by m1pipe"):
        load_mixtures(path, model="a")


def test_classes_are_dealt_by_their_shares_or_as_wanted(
    encoder: Encoder, conditional: Encoder
) -> None:
    assert deal(10, np.array([1.0, 1, 1])).tolist() == [4, 3, 3]
    counts = np.asarray(conditional.condition.counts)  # type: ignore[union-attr]
    dealt = np.bincount(allot(conditional, 100, None))
    np.testing.assert_allclose(dealt, 100 * counts / counts.sum(), atol=1)
    assert allot(conditional, None, {"many": 2, "few": 1}).tolist() == [0, 1, 1]
    assert allot(encoder, 3, None).tolist() == [0, 0, 0]
    for wanted, n, message in [
        ({"none": 3}, None, r"trained on \(few, many\); found 'none'"),
        ({"few": 3}, 4, "4 in all; found few:3"),
        ({"few": 0}, None, "at least 1 sample a class"),
    ]:
        with pytest.raises(InputError, match=message):
            allot(conditional, n, wanted)
    with pytest.raises(InputError, match="expected a conditional model"):
        allot(encoder, None, {"few": 1})


@contextmanager
def _training(encoder: Encoder) -> Iterator[None]:
    """A network left in training mode, as a fault would have it."""
    encoder.module.train()
    try:
        yield
    finally:
        encoder.module.eval()


def test_decoding_is_always_in_evaluation_mode(encoder: Encoder) -> None:
    """In training mode dropout and batch norm add variance: it looks better and is wrong."""
    Z = np.random.default_rng(5).normal(size=(64, 4)).astype(np.float32)
    codes = np.zeros(64, dtype=np.int64)

    def made(noise: bool) -> np.ndarray:
        blocks = decode_samples(encoder, Z, codes, noise=noise, seed=0)
        return np.concatenate([X for _, X in blocks])

    proper = made(noise=True), made(noise=False)
    wrongly = copy.deepcopy(encoder.module).train()
    with torch.no_grad():
        wrong = wrongly.decode(torch.from_numpy(Z)).numpy()
    assert not np.allclose(encoder.scaler.invert(wrong), proper[1], atol=1e-3)
    with _training(encoder):
        np.testing.assert_array_equal(made(noise=True), proper[0])
        np.testing.assert_array_equal(made(noise=False), proper[1])
        assert encoder.module.training


def test_noise_restores_the_variance_that_the_mean_lacks(
    encoder: Encoder, data: anndata.AnnData
) -> None:
    """VAExprs returned the decoder's mean."""
    posterior = aggregated_posterior(encoder, open_matrix(data))
    codes = np.zeros(2000, dtype=np.int64)
    Z = draw_mixtures(fit_mixtures(posterior, 0, seed=0), codes, np.random.default_rng(0))
    real = np.asarray(data.X).var(axis=0)
    ratio = {}
    for noise in (True, False):
        X = np.concatenate([x for _, x in decode_samples(encoder, Z, codes, noise=noise, seed=1)])
        assert X.min() >= 0
        assert (X == 0).any() or not noise
        ratio[noise] = np.exp(np.mean(np.log(X.var(axis=0) / real)))
    assert 0.85 < ratio[True] < 1.15
    assert ratio[False] < 0.9


def test_levels_end_at_zero_only_where_the_data_do(data: anndata.AnnData) -> None:
    centred = np.asarray(data.X)[:, :20] - np.asarray(data.X)[:, :20].mean(axis=0)
    quick = replace(CONFIG, training=replace(CONFIG.training, epochs=1))
    below = train_encoder((centred, [f"g{j}" for j in range(20)]), quick)
    above = train_encoder((np.abs(centred), [f"g{j}" for j in range(20)]), quick)
    Z, codes = np.zeros((300, 4), dtype=np.float32), np.zeros(300, dtype=np.int64)
    lowest = [
        min(X.min() for _, X in decode_samples(encoder, Z, codes, noise=True, seed=0))
        for encoder in (below, above)
    ]
    assert lowest[0] < 0
    assert lowest[1] == 0
    assert below.summary["lowest"] == pytest.approx(centred[[int(s) for s in below.samples]].min())


def test_totals_are_linear_and_closure_names_the_target() -> None:
    rng = np.random.default_rng(6)
    tpm = rng.gamma(1, size=(50, 30)) * 100
    tpm *= 1e6 / tpm.sum(axis=1, keepdims=True)
    found = closure(totals(np.log2(tpm + 1), Units("log2_tpm1")), Units("log2_tpm1"))
    assert found["total_median"] == pytest.approx(1e6, rel=1e-6)
    assert found["target_sum"] == 1e6
    counts = np.arange(6).reshape(2, 3)
    assert totals(counts, Units("counts")).tolist() == [3, 12]
    assert "target_sum" not in closure(np.ones(3), Units("counts"))
    assert closure(totals(counts, Units("zscore")), Units("zscore")) == {}


def test_too_much_noise_is_brought_to_the_variance_of_the_data(
    encoder: Encoder, data: anndata.AnnData
) -> None:
    noisy = replace(encoder, module=copy.deepcopy(encoder.module))
    scale = noisy.module.likelihood.log_scale().exp()  # type: ignore[union-attr, operator]
    noisy.module.likelihood.set_scale(1.6 * scale)  # type: ignore[union-attr, operator]
    mixtures = fit_mixtures(aggregated_posterior(encoder, open_matrix(data)), 0, seed=0)
    rng, codes = np.random.default_rng(0), np.zeros(4000, dtype=np.int64)

    def draw(classes: np.ndarray) -> np.ndarray:
        return draw_mixtures(mixtures, classes, rng)

    factor = noise_factor(noisy, draw)
    assert factor is not None
    assert factor.max() <= 1
    ratio = []
    for chosen in (None, factor):
        blocks = decode_samples(noisy, draw(codes), codes, noise=True, seed=1, factor=chosen)
        X = encoder.scaler.apply(np.concatenate([x for _, x in blocks]))
        ratio.append(np.median(X.var(axis=0) / encoder.pca.gene_variances))
    assert ratio[0] > 1.2
    assert ratio[1] == pytest.approx(1, abs=0.08)


def test_normal_scores_come_out_as_the_training_rows_vary_whatever_the_draws(
    data: anndata.AnnData,
) -> None:
    """Each gene's levels are mapped, in order, to the places of the training rows."""
    config = replace(CONFIG, model=replace(CONFIG.model, transform="normal_score"))
    encoder = train_encoder(data, config)
    rng, codes = np.random.default_rng(0), np.zeros(2000, dtype=np.int64)

    def draw(classes: np.ndarray) -> np.ndarray:
        drawn = 0.3 + 0.5 * rng.standard_normal((classes.size, 4))
        return drawn.astype(np.float32)

    Z, X = draw(codes), np.asarray(data.X)
    factor = noise_factor(encoder, draw)
    plain = decode_samples(encoder, Z, codes, noise=True, seed=0, factor=factor)

    def same_then_more(classes: np.ndarray) -> np.ndarray:
        return Z if classes is codes else draw(classes)

    mapped = calibrated_samples(encoder, codes, same_then_more, noise=True, seed=0)
    before, after = (np.concatenate([x for _, x in blocks]) for blocks in (plain, mapped))
    off = [
        np.mean([stats.ks_2samp(made[:, j], X[:, j]).statistic for j in range(X.shape[1])])
        for made in (before, after)
    ]
    assert off[0] > 0.1
    assert off[1] < 0.04
    for j in range(X.shape[1]):
        order = np.lexsort((after[:, j], before[:, j]))
        assert (np.diff(after[order, j]) >= 0).all()


def test_expected_levels_are_not_mapped(encoder: Encoder) -> None:
    Z, codes = np.zeros((3, 4), dtype=np.float32), np.zeros(3, dtype=np.int64)
    blocks = calibrated_samples(encoder, codes, lambda _: Z, noise=False, seed=0)
    np.testing.assert_array_equal(next(blocks)[1], encoder.decode(Z))
