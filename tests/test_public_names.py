"""What users meet in Python: every form of data is taken, and objects say what they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import m1pipe
from m1pipe.clustering.clusters import Clusters
from m1pipe.config import CrossvalConfig, EncoderConfig, FitConfig, HeadConfig
from m1pipe.encoder import Encoder
from m1pipe.encoder.loadings import decoder_loadings
from m1pipe.evaluation.deploy import fit_predictor
from m1pipe.settings import build
from m1pipe.synthesis.config import QualityConfig

Make = Callable[..., anndata.AnnData]
Form = Callable[[anndata.AnnData], Any]
FORMS = ("path", "text", "frame", "matrix")
HEAD = HeadConfig(hidden=(4,), epochs=2)
QUALITY = QualityConfig(n_draws=1, n_resamples=2, n_permutations=5, n_seeds=1)
CONFIG = CrossvalConfig(folds=3, head=HEAD)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Form:
    """What AnnData is handed over as instead."""

    def path(data: anndata.AnnData) -> Path:
        file = tmp_path / f"{id(data)}.h5ad"
        data.write_h5ad(file)
        return file

    def frame(data: anndata.AnnData) -> Any:
        table = data.to_df()
        table.attrs.update(data.uns)
        return table

    forms: dict[str, Form] = {
        "path": path,
        "text": lambda data: str(path(data)),
        "frame": frame,
        "matrix": m1pipe.open_matrix,
    }
    return forms[request.param]


def _bare(data: anndata.AnnData) -> anndata.AnnData:
    """Without the annotations, which a table cannot hold, and which choose folds."""
    return anndata.AnnData(
        data.X, obs=data.obs[[]].copy(), var=data.var[[]].copy(), uns=dict(data.uns)
    )


@pytest.fixture(scope="module")
def x(expression: Make) -> anndata.AnnData:
    return _bare(expression(90, 20, seed=1))


@pytest.fixture(scope="module")
def y(x: anndata.AnnData) -> anndata.AnnData:
    half = x[:, :6].copy()
    half.var_names = [f"T{j}" for j in range(6)]
    return half


@pytest.fixture(scope="module")
def config() -> EncoderConfig:
    return build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 2})


@pytest.fixture(scope="module")
def encoder(x: anndata.AnnData, config: EncoderConfig) -> Encoder:
    return m1pipe.train_encoder(x, config)


def test_encoders_take_every_form(
    form: Form, x: anndata.AnnData, encoder: Encoder, config: EncoderConfig
) -> None:
    assert m1pipe.train_encoder(form(x), config).digest() == encoder.digest()
    np.testing.assert_array_equal(encoder.transform(form(x)), encoder.transform(x))


def test_estimators_take_every_form(form: Form, x: anndata.AnnData) -> None:
    vae = m1pipe.VAE(3, hidden=(8,), epochs=2)
    wanted = vae.fit_transform(x)
    np.testing.assert_array_equal(vae.fit_transform(form(x)), wanted)
    np.testing.assert_array_equal(vae.transform(form(x)), wanted)


def test_cross_validation_takes_every_form(
    form: Form, x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder
) -> None:
    tables = [
        m1pipe.cross_validate(a, b, encoders={"vae": [encoder]}, config=CONFIG).to_frame()
        for a, b in ((x, y), (form(x), form(y)))
    ]
    np.testing.assert_array_equal(*tables)


def test_predictors_take_every_form(
    form: Form, x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder
) -> None:
    predictor = fit_predictor(x, config=FitConfig(head=HEAD), y=y, encoder=encoder)
    again = fit_predictor(form(x), config=FitConfig(head=HEAD), y=form(y), encoder=encoder)
    wanted = predictor.predict(x).X
    np.testing.assert_array_equal(predictor.predict(form(x)).X, wanted)
    np.testing.assert_array_equal(again.predict(x).X, wanted)


@pytest.mark.slow
def test_quality_takes_every_form(form: Form, x: anndata.AnnData, expression: Make) -> None:
    other, third = (_bare(expression(30, 20, seed=seed)) for seed in (2, 3))
    tables = [
        m1pipe.quality(*data, config=QUALITY).to_frame()
        for data in ((x[:40], other, third), (form(x[:40]), form(other), form(third)))
    ]
    np.testing.assert_array_equal(tables[0]["value"], tables[1]["value"])


def test_objects_say_what_they_are(
    x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder
) -> None:
    found = repr(encoder)
    r2, active = encoder.summary["r2"], encoder.summary["active_units"]
    assert found.startswith(
        "Encoder(20 genes in log2_normalized1 (target sum 10000), 3 latents, gaussian, beta 1; "
        f"held-out R2 {r2:.3f} (PCA "
    )
    assert found.endswith(f"{active} of 3 units active)")
    predictor = fit_predictor(x, config=FitConfig(head=HEAD), y=y, encoder=encoder)
    assert repr(predictor) == (
        "Predictor(vae: 6 targets (T0, T1, T2, ...) from 3 latents; 20 genes)"
    )
    result = m1pipe.cross_validate(x, y, config=CONFIG)
    assert repr(result).startswith("CrossvalResult(90 samples, 3 folds; mse: mean ")
    quality = m1pipe.quality(x[:50], x[50:70], x[70:], config=QUALITY)
    shown = repr(quality)
    assert shown.startswith("QualityReport(") and shown.count("\n") == 0
    for score in quality.scores["synthetic"]:
        assert (score.definition.title in shown) is not bool(score.not_applicable)
    active = decoder_loadings(encoder)
    assert repr(active).startswith(f"Loadings({len(active.obs)} units x 20 genes, ")
    groups = Clusters(np.array([1, 1, 2]), 0.5)
    assert repr(groups) == "Clusters(3 samples in 2; silhouette 0.50)"
    assert list(groups.to_frame()["n_samples"]) == [2, 1]
