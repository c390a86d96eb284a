import copy
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from m1pipe import VAE, FeedForwardClassifier, FeedForwardRegressor, load_encoder
from m1pipe.config import EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.encoder import train_encoder
from m1pipe.encoder.likelihood import log_likelihood
from m1pipe.errors import InputError
from m1pipe.settings import build

QUICK: dict[str, Any] = {"n_latent": 2, "hidden": (8,), "epochs": 3, "kl_warmup": 0.0}


@parametrize_with_checks(
    [
        VAE(n_latent=3, hidden=(8,), epochs=2),
        FeedForwardRegressor(hidden=(8,), epochs=10),
        FeedForwardClassifier(hidden=(8,), epochs=10),
    ]
)
def test_scikit_learn_accepts_them(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture
def X(rng: np.random.Generator) -> np.ndarray:
    Z = rng.normal(size=(120, 2))
    return (Z @ rng.normal(size=(2, 9)) + 0.3 * rng.normal(size=(120, 9)) + 5).astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("estimator", "kinds"),
    [
        (VAE(), (ModelConfig, TrainingConfig)),
        (FeedForwardRegressor(), (HeadConfig,)),
        (FeedForwardClassifier(), (HeadConfig,)),
    ],
)
def test_defaults_are_those_of_the_configuration(estimator: Any, kinds: Any) -> None:
    names = {"input_transform": "transform", "random_state": "seed"}
    defaults = {}
    for kind in kinds:
        defaults |= {field.name: getattr(kind(), field.name) for field in fields(kind)}
    defaults.setdefault("seed", 0)
    found = estimator.get_params()
    left_out = {"memory", "checkpoint_minutes"}  # they do not change a result
    left_out |= {"micro_batch"}  # nor does this, but for rounding
    left_out |= {"min_variance"}  # a pipeline has scikit-learn's VarianceThreshold for it
    left_out |= {"condition", "batch", "center_within", "own_gene"}  # annotations, of files
    assert {names.get(name, name) for name in found} >= set(defaults) - left_out - {"class_weight"}
    assert found.pop("scale", "each") == "each"  # what features are is for the caller to say
    for name, value in found.items():
        assert value == (False if name == "verbose" else defaults[names.get(name, name)]), name


def test_sparse_input_is_taken_as_the_dense(X: np.ndarray) -> None:
    some, y = sparse.csr_array(np.maximum(X - 5, 0)), X[:, 0]
    dense = some.toarray()
    for model, target in (
        (FeedForwardRegressor(hidden=()), y),
        (FeedForwardClassifier(hidden=()), y > y.mean()),
    ):
        model.fit(some, target)
        np.testing.assert_array_equal(
            model.predict(some), clone(model).fit(dense, target).predict(dense)
        )
    vae = VAE(**QUICK).fit(some)
    np.testing.assert_array_equal(vae.transform(some), VAE(**QUICK).fit(dense).transform(dense))


def test_vae_finds_what_the_encoder_of_the_library_finds(X: np.ndarray, tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=[f"g{j}" for j in range(9)])
    vae = VAE(**QUICK).fit(frame)
    vae.save(tmp_path / "run")
    Z = load_encoder(tmp_path / "run").transform(frame)
    np.testing.assert_allclose(vae.transform(frame), Z, rtol=1e-4, atol=1e-5)
    assert vae.encoder_.genes == tuple(frame.columns)


def test_vae_goes_to_a_folder_and_back(X: np.ndarray, tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=[f"g{j}" for j in range(9)])
    vae = VAE(**QUICK, lr=0.01, random_state=3).fit(frame)
    vae.save(tmp_path / "run")
    again = VAE.load(tmp_path / "run")
    assert again.lr == 0.01
    assert again.random_state == 3
    np.testing.assert_array_equal(again.transform(frame), vae.transform(frame))
    with pytest.raises(ValueError, match="feature names"):
        again.transform(frame[frame.columns[::-1]])


def test_pickle_keeps_every_answer(X: np.ndarray) -> None:
    vae = VAE(**QUICK).fit(X)
    again = pickle.loads(pickle.dumps(vae))
    np.testing.assert_array_equal(again.transform(X), vae.transform(X))
    np.testing.assert_array_equal(again.sample(3, random_state=1), vae.sample(3, random_state=1))


def test_inverse_transform_decodes_in_the_units_of_the_data(X: np.ndarray) -> None:
    vae = VAE(n_latent=2, hidden=(16,), epochs=60, lr=0.01).fit(X)
    back = vae.inverse_transform(vae.transform(X))
    assert ((back - X) ** 2).mean() < 0.5 * X.var(axis=0).mean()
    with pytest.raises(ValueError, match=r"expected shape \(n_samples, 2\)"):
        vae.inverse_transform(np.zeros((3, 5)))


def test_samples_have_the_mean_and_spread_of_the_data(X: np.ndarray) -> None:
    vae = VAE(n_latent=2, hidden=(16,), epochs=60, lr=0.01).fit(X)
    S = vae.sample(4000, random_state=0)
    np.testing.assert_allclose(S.mean(axis=0), X.mean(axis=0), atol=0.35)
    ratio = S.std(axis=0) / X.std(axis=0)
    assert ratio.min() > 0.6
    assert ratio.max() < 1.6
    assert not np.array_equal(S[:5], vae.sample(5, random_state=1))


def test_a_plain_autoencoder_has_no_likelihood(X: np.ndarray) -> None:
    ae = VAE(**QUICK, beta=0.0).fit(X)
    assert ae.transform(X).shape == (120, 2)
    for method in ("sample", "score_samples", "score"):
        assert not hasattr(ae, method)
    with pytest.raises(AttributeError, match="sample"):
        ae.sample(1)


def test_score_is_the_log_likelihood_of_a_model_where_it_is_known(X: np.ndarray) -> None:
    """A linear Gaussian VAE at its exact posterior: the bound is tight, whatever the noise."""
    vae = VAE(n_latent=1, hidden=(), decoder_hidden=(), epochs=1, likelihood="gaussian_unit")
    vae.fit(X)
    covariance = _set_factor_model(vae)
    scaler = vae.encoder_.scaler
    density = stats.multivariate_normal(np.zeros(9), covariance)
    expected = density.logpdf(scaler.apply(X)) - np.log(scaler.scale.astype(float)).sum()
    np.testing.assert_allclose(vae.score_samples(X), expected, rtol=1e-4)
    assert vae.score(X) == pytest.approx(expected.mean(), rel=1e-4)


def _set_factor_model(vae: VAE) -> np.ndarray:
    """One factor at its exact posterior; the covariance of the scaled levels."""
    module = vae.encoder_.module
    W = torch.linspace(-1, 1, 9)[:, None]
    M = 1 + float((W**2).sum())
    with torch.no_grad():
        for layer in (module.mu_head, module.logvar_head, module.output):
            layer.weight.zero_()
            layer.bias.zero_()
        module.skip_encoder.weight.copy_(W.T / M)
        module.skip_encoder.bias.zero_()
        module.skip_decoder.weight.copy_(W)
        module.skip_decoder.bias.zero_()
        module.logvar_head.bias.fill_(-np.log(M))
    covariance: np.ndarray = (W @ W.T).numpy() + np.eye(9)
    return covariance


def test_score_of_rows_with_gaps_is_the_law_of_the_levels_that_are_there(X: np.ndarray) -> None:
    vae = VAE(n_latent=1, hidden=(), decoder_hidden=(), epochs=1, likelihood="gaussian_unit")
    gaps = _with_gaps(X)
    vae.fit(gaps)
    covariance, scaler = _set_factor_model(vae), vae.encoder_.scaler
    Z, expected = scaler.apply(gaps), []
    for z in Z:
        known = ~np.isnan(z)
        law = stats.multivariate_normal(np.zeros(known.sum()), covariance[np.ix_(known, known)])
        expected.append(law.logpdf(z[known]) - np.log(scaler.scale[known].astype(float)).sum())
    np.testing.assert_allclose(vae.score_samples(gaps), expected, atol=0.3)


def _with_gaps(X: np.ndarray) -> np.ndarray:
    gaps = X.copy()
    gaps[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    assert 0 < np.isnan(gaps).sum() and not np.isnan(gaps).all(axis=1).any()
    return gaps


def test_vae_takes_gaps_as_the_command_does(X: np.ndarray) -> None:
    """The same encoder as `train` makes of the file, and the same latents, levels and scores."""
    genes = [f"g{j}" for j in range(9)]
    frame = pd.DataFrame(_with_gaps(X), columns=genes)
    vae = VAE(**QUICK, device="cpu").fit(frame)
    settings = {**QUICK, "device": "cpu"}
    encoder = train_encoder((frame.to_numpy(), genes), build(EncoderConfig, settings))
    assert vae.encoder_.summary["n_missing"] == frame.isna().to_numpy().sum()
    for name, weights in encoder.module.state_dict().items():
        torch.testing.assert_close(vae.encoder_.module.state_dict()[name], weights)
    Z = vae.transform(frame)
    np.testing.assert_allclose(Z, encoder.transform(frame), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vae.inverse_transform(Z), encoder.reconstruct(frame), rtol=1e-4)
    np.testing.assert_allclose(
        vae.score_samples(frame), log_likelihood(encoder, frame)[0], atol=0.5
    )
    assert np.isfinite(vae.sample(5, random_state=0)).all()


def test_a_gap_is_encoded_as_the_mean_of_the_levels_that_are_there(X: np.ndarray) -> None:
    gaps = _with_gaps(X)
    vae = VAE(**QUICK, validation=0.0).fit(gaps)
    filled = np.where(np.isnan(gaps), np.nanmean(gaps, axis=0), gaps)
    np.testing.assert_allclose(vae.transform(gaps), vae.transform(filled), atol=1e-4)


def test_what_has_no_level_at_all_is_refused_and_so_are_gaps_among_counts(X: np.ndarray) -> None:
    gaps = _with_gaps(X)
    vae = VAE(**QUICK).fit(gaps)
    gaps[3] = np.nan
    with pytest.raises(InputError, match=r"found none in row 3 \(1 such rows\): leave them out"):
        vae.transform(gaps)
    with pytest.raises(InputError, match="expected a level of at least one"):
        VAE(**QUICK).fit(gaps)
    counts = np.floor(X)
    counts[0, 0] = np.nan
    law = VAE(**QUICK, likelihood="negative_binomial", input_transform="none")
    with pytest.raises(ValueError, match="NaN"):
        law.fit(counts)
    assert not law.__sklearn_tags__().input_tags.allow_nan
    infinite = np.where(np.isnan(_with_gaps(X)), np.inf, X)
    with pytest.raises(ValueError, match="infinity"):
        VAE(**QUICK).fit(infinite)


def test_vae_with_gaps_needs_no_imputer_in_a_pipeline(X: np.ndarray) -> None:
    pipeline = make_pipeline(VAE(**QUICK), Ridge())
    assert np.isfinite(cross_val_score(pipeline, _with_gaps(X), X[:, 0], cv=3)).all()


def test_rows_are_scored_the_same_alone_and_together(X: np.ndarray) -> None:
    vae = VAE(**QUICK).fit(X)
    together = vae.score_samples(X)
    alone = [vae.score_samples(X[[i]])[0] for i in (0, 7, 119)]
    np.testing.assert_allclose(alone, together[[0, 7, 119]], rtol=1e-9)


def test_vae_stands_in_a_pipeline_and_a_grid_search(X: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), VAE(**QUICK), FeedForwardRegressor(epochs=2))
    assert pipeline.fit(X, X[:, :2]).predict(X).shape == (120, 2)
    search = GridSearchCV(VAE(**QUICK), {"n_latent": [1, 2]}, cv=2).fit(X)
    assert np.isfinite(search.best_score_)
    named = make_pipeline(VAE(**QUICK)).set_output(transform="pandas").fit_transform(X)
    assert list(named.columns) == ["vae0", "vae1"]


def test_clone_copies_settings_and_no_state(X: np.ndarray) -> None:
    vae = VAE(**QUICK).fit(X)
    assert clone(vae).get_params() == vae.get_params()
    assert not hasattr(clone(vae), "encoder_")


def test_the_same_seed_gives_the_same_model_and_another_one_another(X: np.ndarray) -> None:
    first, second = (VAE(**QUICK, random_state=4).fit_transform(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, VAE(**QUICK, random_state=5).fit_transform(X))
    drawn = VAE(**QUICK, random_state=np.random.RandomState(4)).fit_transform(X)
    assert not np.array_equal(first, drawn)


def test_regressor_learns_a_line_and_returns_the_shape_of_y(X: np.ndarray) -> None:
    y = X[:, 0] - 2 * X[:, 1]
    assert cross_val_score(FeedForwardRegressor(), X, y, cv=3).min() > 0.9
    model = FeedForwardRegressor(epochs=3)
    assert model.fit(X, y).predict(X).shape == (120,)
    assert model.fit(X, y[:, None]).predict(X).shape == (120, 1)


def test_a_gene_constant_in_training_does_not_blow_a_prediction_up(
    X: np.ndarray, rng: np.random.Generator
) -> None:
    train = X.copy()
    train[:, 4] = 1.0
    test = train.copy()
    test[:, 4] = 3.0
    y = train[:, 0]
    model = FeedForwardRegressor(epochs=40).fit(train, y)
    change = np.abs(model.predict(test) - model.predict(train))
    assert np.isinf(model.head_.features.scaler.scale[4])
    assert change.max() < 30 * y.std()


def test_classifier_with_text_labels(X: np.ndarray) -> None:
    y = np.where(X[:, 0] > X[:, 0].mean(), "tumour", "normal")
    model = FeedForwardClassifier().fit(X[:80], y[:80])
    assert list(model.classes_) == ["normal", "tumour"]
    assert model.score(X[80:], y[80:]) > 0.8
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_classifier_refuses_one_class(X: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        FeedForwardClassifier().fit(X, np.ones(120))


def test_class_weights_move_the_prediction(X: np.ndarray, rng: np.random.Generator) -> None:
    y = np.where(rng.random(120) < 0.1, "rare", "usual")
    assert 3 < (y == "rare").sum() < 30
    plain = FeedForwardClassifier(epochs=5).fit(X, y).predict_proba(X)[:, 0].mean()
    for weight in ("balanced", {"rare": 9.0, "usual": 1.0}):
        weighted = FeedForwardClassifier(epochs=5, class_weight=weight).fit(X, y)
        assert weighted.predict_proba(X)[:, 0].mean() > plain + 0.2
