"""Genes centred within studies: shifts and stretches vanish, also those of a new study."""

import logging
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe import cross_validate
from m1pipe.config import CrossvalConfig, EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.encoder import Encoder, load_encoder, train_encoder
from m1pipe.encoder.mixing import adjusted_r2
from m1pipe.encoder.reconstruct import run_impute
from m1pipe.errors import InputError, M1Warning

N_GENES = 30
CONFIG = EncoderConfig(
    model=ModelConfig(n_latent=2, hidden=(), center_within="study"),
    training=TrainingConfig(epochs=3, kl_warmup=0.0),
)


def study(name: str, seed: int, n: int = 60) -> anndata.AnnData:
    """Half of the samples are of kind a; the study shifts every gene, and stretches it."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    effect = np.random.default_rng(50).normal(size=N_GENES)
    X = 2 * np.outer(kind, effect) + 0.7 * rng.normal(size=(n, N_GENES))
    X = X * rng.uniform(0.5, 2, N_GENES) + 20 + 4 * rng.normal(size=N_GENES)
    obs = pd.DataFrame({"study": name, "kind": np.where(kind, "a", "b")})
    obs.index = [f"{name}{i}" for i in range(n)]
    var = pd.DataFrame(index=[f"g{j}" for j in range(N_GENES)])
    uns = Units("log2_intensity").to_uns()
    return anndata.AnnData(X.astype(np.float32), obs=obs, var=var, uns=uns)


@pytest.fixture(scope="module")
def data() -> anndata.AnnData:
    return anndata.concat([study(name, i) for i, name in enumerate("ABC")], uns_merge="same")


@pytest.fixture(scope="module")
def encoder(data: anndata.AnnData) -> Encoder:
    return train_encoder(data, CONFIG)


def test_every_study_has_the_mean_and_spread_of_the_training_samples(
    data: anndata.AnnData, encoder: Encoder
) -> None:
    assert encoder.centring is not None
    X = encoder.align(data).take(np.arange(180))
    for name in "ABC":
        own = X[data.obs["study"] == name]
        np.testing.assert_allclose(own.mean(axis=0), encoder.centring.location, rtol=1e-4)
        np.testing.assert_allclose(own.std(axis=0), encoder.centring.scale, rtol=1e-3)
    expected = np.mean([np.asarray(data.X[data.obs["study"] == s]).mean(0) for s in "ABC"], axis=0)
    np.testing.assert_allclose(encoder.centring.location, expected, rtol=1e-4)


def test_shifts_vanish_and_the_kind_stays_in_a_new_study_too(
    data: anndata.AnnData, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    new = study("N", 9)
    with caplog.at_level(logging.INFO):
        Z = np.concatenate([encoder.transform(data), encoder.transform(new)])
    assert "genes are centred and scaled within study by the samples' own levels: N (60)" in (
        caplog.text
    )
    obs = pd.concat([data.obs, new.obs])
    r2 = {
        name: adjusted_r2([Z - Z.mean(axis=0)], [pd.factorize(obs[name])[0]])[0]
        for name in ("study", "kind")
    }
    assert r2["study"] < 0.02 and r2["kind"] > 0.6
    assert encoder.summary["batches"]["r2"]["study"][1] < 0.02


def test_a_file_that_names_no_study_is_one(encoder: Encoder) -> None:
    new = study("N", 9)
    unnamed = new.copy()
    del unnamed.obs["study"]
    np.testing.assert_array_equal(encoder.transform(unnamed), encoder.transform(new))


def test_stored_and_read_back(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "run")
    new = study("N", 9)
    found = load_encoder(tmp_path / "run").transform(new)
    np.testing.assert_array_equal(found, encoder.transform(new))


def test_a_missing_level_has_no_part_in_the_means(encoder: Encoder) -> None:
    new = study("N", 9)
    gaps = new.copy()
    gaps.X[0, 3] = np.nan
    X = encoder.align(gaps, keep_missing=True).take(np.arange(60))
    assert np.isnan(X).sum() == 1
    assert encoder.centring is not None
    assert np.nanmean(X[:, 3]) == pytest.approx(encoder.centring.location[3], rel=1e-5)


def test_what_cannot_be_centred_is_refused(
    data: anndata.AnnData, encoder: Encoder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"at least 3 samples of every study.*found N \(1\)"):
        encoder.transform(study("N", 9, n=1))
    with pytest.warns(M1Warning, match=r"studies of under 10 samples .*: N \(6\)"):
        encoder.transform(study("N", 9, n=6))
    config = replace(CONFIG, model=replace(CONFIG.model, center_within="site"))
    with pytest.raises(InputError, match="center_within: expected a column of obs"):
        train_encoder(data, config)
    encoder.save(tmp_path / "run")
    data.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match="impute: expected an encoder of levels as they are"):
        run_impute(tmp_path / "run", tmp_path / "x.h5ad", tmp_path / "f.h5ad", min_coverage=0.8)
    with pytest.raises(InputError, match="expected a normal likelihood"):
        ModelConfig(center_within="study", likelihood="negative_binomial")
    with pytest.raises(InputError, match="expected settings without center_within"):
        cross_validate(data, label="kind", encoders={"vae": CONFIG}, config=CrossvalConfig(folds=2))
