"""Training, encoding and scoring with missing levels, against what is known of the planted law."""

from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from m1pipe.config import EncoderConfig
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.encoder import Encoder, train_encoder
from m1pipe.encoder.conditional import fit_shift
from m1pipe.encoder.drift import encode_with_drift
from m1pipe.encoder.likelihood import log_likelihood
from m1pipe.encoder.missing import impute_array
from m1pipe.encoder.plan import plan_training
from m1pipe.errors import InputError, M1Warning
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]
SETTINGS = {"n_latent": 4, "epochs": 10, "device": "cpu"}


def _config(**settings: object) -> EncoderConfig:
    return build(EncoderConfig, {**SETTINGS, **settings})


def _with_gaps(data: anndata.AnnData, share: float = 0.1, seed: int = 0) -> anndata.AnnData:
    made, rng = data.copy(), np.random.default_rng(seed)
    made.X[rng.random(data.shape) < share] = np.nan
    return made


@pytest.fixture(scope="module")
def gaps(data: anndata.AnnData) -> anndata.AnnData:
    return _with_gaps(data)


@pytest.fixture(scope="module")
def model(gaps: anndata.AnnData) -> Encoder:
    return train_encoder(gaps, _config())


def _impute_share(encoder: Encoder, gaps: anndata.AnnData, whole: anndata.AnnData) -> float:
    """Squared error of imputed levels as a share of that of gene means."""
    missing, X = np.isnan(gaps.X), np.asarray(whole.X)
    codes = None if encoder.condition is None else encoder.condition.codes(gaps.obs, "data")
    filled = impute_array(encoder, np.asarray(gaps.X), codes)
    assert np.array_equal(filled[~missing], X[~missing])
    means = np.broadcast_to(np.nanmean(gaps.X, axis=0), X.shape)
    errors = [((guess - X)[missing] ** 2).mean() for guess in (filled, means)]
    return float(errors[0] / errors[1])


def test_imputation_after_training_with_gaps_beats_gene_means(
    model: Encoder, gaps: anndata.AnnData, data: anndata.AnnData
) -> None:
    """And comes near to what the same training makes of the whole data."""
    whole = train_encoder(data, _config())
    assert model.summary["n_missing"] == np.isnan(gaps.X).sum() > 0 == whole.summary["n_missing"]
    shares = [_impute_share(made, gaps, data) for made in (model, whole)]
    assert shares[0] < 0.3 and shares[0] < 1.3 * shares[1]
    assert model.summary["r2"] > whole.summary["r2"] - 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {"condition": "tissue"},
        {"transform": "normal_score"},
        {"transform": "minmax", "likelihood": "bernoulli", "epochs": 40},
        {"beta": 0.0},
        {"likelihood": "gaussian_shared", "transform": "center"},
        {"likelihood": "hurdle_gaussian", "epochs": 60},
        {"memory": "37K", "batch_size": 16},
    ],
)
def test_every_way_of_training_takes_gaps(
    settings: dict[str, object], gaps: anndata.AnnData, data: anndata.AnnData
) -> None:
    plan = plan_training(gaps, _config(**settings))
    assert plan.streams == ("memory" in settings)
    encoder = train_encoder(gaps, _config(**settings))
    assert _impute_share(encoder, gaps, data) < 0.9
    assert np.isfinite(encoder.transform(gaps)).all()
    assert np.isfinite([encoder.summary[k] for k in ("r2", "pca_r2", "val_loss", "lowest")]).all()


def test_gaps_in_the_validation_rows_alone_are_masked_too(data: anndata.AnnData) -> None:
    rows, made = np.arange(40), data.copy()
    made.X[:40] = _with_gaps(data[:40]).X
    encoder = train_encoder(made, _config(), validation=rows)
    assert encoder.summary["n_missing"] == np.isnan(made.X).sum() > 0
    assert np.isfinite(encoder.summary["val_loss"])


def test_a_missing_level_counts_for_nothing_wherever_it_is(model: Encoder) -> None:
    """Encoding with a gap is encoding the training mean of the observed levels."""
    X = model.recipe.gene_means[None] + np.linspace(-1, 1, 40, dtype=np.float32)[None]
    X[0, 7] = np.nan
    filled = np.where(np.isnan(X), model.recipe.gene_means, X)
    np.testing.assert_allclose(model.encode_array(X), model.encode_array(filled), atol=1e-5)


def test_means_and_scales_are_those_of_observed_levels(gaps: anndata.AnnData) -> None:
    X = np.asarray(gaps.X)
    for kind in ("standardize", "normal_score"):
        blocks = [X[:50], X[50:51], X[51:]]
        found = fit_gene_transform(kind, blocks, keep_missing=True)
        if kind == "standardize":
            np.testing.assert_allclose(found.location, np.nanmean(X, axis=0), rtol=1e-5)
            np.testing.assert_allclose(found.scale, np.nanstd(X, axis=0), rtol=1e-5)
        else:
            places = (np.arange(len(X)) + 0.5) / len(X)
            expected = np.nanquantile(X.astype(float), places, axis=0, method="hazen")
            np.testing.assert_allclose(found.levels, expected, rtol=1e-5)
        with pytest.raises(InputError, match="found NaN or infinity in gene column"):
            fit_gene_transform(kind, blocks)


def test_class_means_are_those_of_observed_levels(gaps: anndata.AnnData) -> None:
    X, codes = np.asarray(gaps.X, dtype=np.float64), (gaps.obs["tissue"] == "Liver").astype(int)
    found = fit_shift([X[:99], X[99:]], codes.to_numpy(), 2)
    table = pd.DataFrame(X)
    mean, counts = table.mean(), table.groupby(codes.to_numpy()).count()
    raw = (table - mean).groupby(codes.to_numpy()).sum() / (counts + 1)
    expected = raw - (counts * raw).sum() / counts.sum()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_bound_is_that_of_the_observed_levels(expression: Make) -> None:
    """Against the normal law of the levels that are there, for a model that is linear."""
    data = expression(300, 12)
    encoder = train_encoder(data, _config(n_latent=3, epochs=1, lr=1e-12))
    module = encoder.module
    assert module.skip_decoder is not None
    W = module.skip_decoder.weight.detach().double().numpy()
    mean = module.skip_decoder.bias.detach().double().numpy()
    spread = module.likelihood.log_scale().exp().square().detach().double().numpy()
    new = _with_gaps(expression(20, 12, seed=5), 0.2)
    nats, n_known = log_likelihood(encoder, new, draws=4000)
    scaled = encoder.scaler.apply(np.asarray(new.X)).astype(np.float64)
    for i, x in enumerate(scaled):
        j = np.flatnonzero(~np.isnan(x))
        law = stats.multivariate_normal(mean[j], (W @ W.T + np.diag(spread))[np.ix_(j, j)])
        expected = law.logpdf(x[j]) - np.log(encoder.scaler.scale[j].astype(float)).sum()
        assert n_known[i] == j.size
        assert nats[i] == pytest.approx(expected, abs=0.5)


def test_drift_is_that_of_the_observed_levels(model: Encoder, gaps: anndata.AnnData) -> None:
    Z, drift = encode_with_drift(model, gaps)
    np.testing.assert_array_equal(Z, model.transform(gaps))
    assert drift.n_missing == np.isnan(gaps.X).sum()
    assert drift.gene_shift < 0.1 and drift.beyond < 0.05
    assert f"{drift.n_missing:,} levels are missing (" in drift.lines()[0]


def test_genes_and_samples_without_a_level_are_named(data: anndata.AnnData) -> None:
    made = data.copy()
    made.X[:, 3] = np.nan
    with pytest.raises(InputError, match=r"found none of 1 gene \(ENSG00000000004\)"):
        train_encoder(made, _config())
    made = data.copy()
    made.X[5] = np.nan
    with pytest.raises(InputError, match=r"found none in 's0_5' \(1 such samples\)"):
        train_encoder(made, _config())
    made = data.copy()
    made.X[9:, 3] = np.nan
    with pytest.warns(M1Warning, match=r"1 gene has under 10 levels.*ENSG00000000004"):
        plan_training(made, _config(validation=0.0))


def test_counts_with_gaps_are_refused(expression: Make) -> None:
    counts = _with_gaps(expression(counts=True))
    config = _config(likelihood="negative_binomial", transform="none")
    with pytest.raises(InputError, match="needs every sample's total"):
        train_encoder(counts, config)
