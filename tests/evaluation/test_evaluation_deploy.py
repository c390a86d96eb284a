"""A model that is fitted by its name predicts what it predicted in the comparison."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe import cross_validate, fit_predictor, load_predictor, train_encoder
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig
from m1pipe.encoder import Encoder
from m1pipe.errors import InputError
from m1pipe.evaluation.folds import Fold
from m1pipe.evaluation.metrics import per_sample_loss
from m1pipe.evaluation.problem import make_fold, make_problem
from m1pipe.settings import build

LINEAR = HeadConfig(hidden=())
TINY = build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 2})
N, P = 100, 50
ON_LEVELS = (
    *("mean", "ridge", "ridge_prior", "gene", "ridge_gene"),
    *("pca_linear", "vae_linear", "vae_ridge", "vae_linear_gene", "vae_ridge_gene"),
)


@pytest.fixture(scope="module")
def x() -> anndata.AnnData:
    """Samples of four factors, the last forty without a label; a gene or two are missing."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N + 40, 4)) @ rng.normal(size=(4, P)) + rng.normal(size=(N + 40, P))
    kind = np.where(X[:, 0] > 0, "ill", "well").astype(object)
    kind[N:] = None
    X[rng.random(X.shape) < 0.01] = np.nan
    obs = pd.DataFrame({"kind": kind}, index=[f"s{i}" for i in range(N + 40)])
    var = pd.DataFrame(index=[f"g{j}" for j in range(P)])
    return anndata.AnnData(X.astype(np.float32), obs, var, uns={"units": "log_fold_change"})


@pytest.fixture(scope="module")
def y(x: anndata.AnnData) -> anndata.AnnData:
    """Isoforms of five genes."""
    rng = np.random.default_rng(1)
    Y = np.nan_to_num(x.X[:N, [0, 0, 1, 2, 3]]) + 0.5 * rng.normal(size=(N, 5))
    var = pd.DataFrame({"gene_id": ["g0", "g0", "g1", "g2", "g3"]}, index=[*"abcde"])
    obs = pd.DataFrame(index=x.obs_names[:N])
    return anndata.AnnData(Y.astype(np.float32), obs, var, uns={"units": "log_fold_change"})


@pytest.fixture(scope="module")
def encoder(x: anndata.AnnData) -> Encoder:
    some = x[:, :40].copy()
    return train_encoder(some, TINY)


def _predicts_as_compared(
    x: anndata.AnnData, name: str, split: Fold, loss: np.ndarray, folder: Path, **given: Any
) -> None:
    """The loss of every test sample of a fold, by a model fitted to the training rows alone."""
    labelled = x[:N]
    model = fit_predictor(
        labelled[split.train].copy(), model=name, seed=split.seed, group="none", **given
    )
    model.save(folder / name)
    again = load_predictor(folder / name)
    new = labelled[split.test, ::-1].copy()
    predicted = again.predict(new).X
    np.testing.assert_array_equal(predicted, model.predict(new).X)
    found = per_sample_loss(split.targets.kind, predicted, split.targets.values[split.test])
    np.testing.assert_allclose(found, loss, rtol=2e-3, atol=1e-4)


def test_levels_as_in_the_comparison(
    x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder, tmp_path: Path
) -> None:
    config = CrossvalConfig(folds=2, models=ON_LEVELS, group="none", head=LINEAR)
    problem = make_problem(x, y, encoders={"vae": encoder}, config=config)
    split = make_fold(problem, 0, 0)
    shares = {}
    cross_validate(
        x, y, encoders={"vae": encoder}, config=config,
        on_share=lambda share: shares.setdefault(share.fold, share),
    )  # fmt: skip
    losses = shares[0].losses
    assert losses["mean"].mean() > 1.2 * losses["ridge"].mean()
    for name in ON_LEVELS:
        given = {} if name in ("mean", "ridge", "gene", "ridge_gene") else {"encoder": encoder}
        _predicts_as_compared(x, name, split, losses[name][0], tmp_path, y=y, **given)


def test_classes_as_in_the_comparison(x: anndata.AnnData, tmp_path: Path) -> None:
    names = ("prior", "logistic", "logistic_prior", "pca_linear")
    config = CrossvalConfig(folds=2, models=names, group="none", head=LINEAR)
    split = make_fold(make_problem(x, label="kind", config=config), 0, 0)
    shares = {}
    cross_validate(
        x, label="kind", config=config,
        on_share=lambda share: shares.setdefault(share.fold, share),
    )  # fmt: skip
    for name in names:
        loss = shares[0].losses[name.replace("pca", "pca_fold")][0]
        _predicts_as_compared(x, name, split, loss, tmp_path, label="kind")


@pytest.mark.parametrize("name", ["vae", "pca_fold", "vae_ridge_gene"])
def test_an_encoder_of_settings_is_trained_on_all_samples_of_x(
    name: str, x: anndata.AnnData, y: anndata.AnnData, tmp_path: Path
) -> None:
    """Those without a label too, but not those that intervals are made from."""
    settings = {"hidden": (4,), "epochs": 2, "networks": 1, "conformal": 0.2, "group": "none"}
    model = fit_predictor(x, y, encoder={"vae": TINY}, model=name, **settings)
    encoder = model.encoder
    assert encoder is not None
    seen = len(encoder.samples) + len(encoder.validation_samples)
    assert seen == N + 40 - N // 5
    model.save(tmp_path / "m")
    predicted = load_predictor(tmp_path / "m").predict(x, interval=0.8)
    np.testing.assert_array_equal(predicted.X, model.predict(x).X)
    assert (predicted.var["half_width"] > 0).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "rigde"}, "models: expected some of mean, ridge, .*found rigde"),
        ({"model": "logistic"}, "models: expected some of .*found logistic"),
        ({"model": "vae_ridge"}, "found vae_ridge"),
        ({"model": "raw_augmented"}, "raw_augmented expects augment"),
        ({"model": "stratum_mean", "stratify": "site"}, "which is told the stratum of each"),
        ({"encoder": {"vae": [TINY, TINY]}}, "expected one encoder, of one seed"),
        ({"encoder": {"a": TINY, "b": TINY}}, "expected one, of the model.*found a, b"),
        ({"modell": "ridge"}, "unknown setting 'modell'"),
    ],
)
def test_what_cannot_be_fitted_is_named(
    given: dict[str, Any], message: str, x: anndata.AnnData, y: anndata.AnnData
) -> None:
    sites = x.copy()
    sites.obs["site"] = ["north", "south"] * (len(x) // 2)
    with pytest.raises(InputError, match=message):
        fit_predictor(sites, y, **given)
