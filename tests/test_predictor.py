"""The final head on a frozen encoder: predictions in Y's units, alone in its folder."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer

from m1pipe.config import EncoderConfig, FitConfig, HeadConfig
from m1pipe.encoder import Encoder, train_encoder
from m1pipe.errors import InputError, M1Warning
from m1pipe.evaluation.deploy import fit_predictor
from m1pipe.predictor import Predictor, load_predictor
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]
HEAD = HeadConfig(hidden=(16,), epochs=60, lr=0.01)


@pytest.fixture(scope="module")
def x(expression: Make) -> anndata.AnnData:
    return expression(200, 30, seed=1)


@pytest.fixture(scope="module")
def y(x: anndata.AnnData) -> anndata.AnnData:
    """Isoform levels: halves of genes, in another order of samples, some of them missing."""
    linear = np.exp2(np.asarray(x.X)) - 1
    X = np.log2(1 + np.concatenate([0.5 * linear[:, :10], 0 * linear[:, :2]], axis=1))
    var = pd.DataFrame(index=[f"T{j}" for j in range(12)])
    both = anndata.AnnData(X=X.astype(np.float32), obs=x.obs.copy(), var=var, uns=dict(x.uns))
    return both[np.random.default_rng(0).permutation(200)[:180]].copy()


@pytest.fixture(scope="module")
def encoder(expression: Make) -> Encoder:
    config = build(EncoderConfig, {"n_latent": 5, "hidden": [16], "epochs": 10})
    return train_encoder(expression(300, 30), config)


@pytest.fixture(scope="module")
def levels(x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder) -> Predictor:
    return fit_predictor(x, config=FitConfig(head=HEAD), y=y, encoder=encoder)


@pytest.fixture(scope="module")
def classes(x: anndata.AnnData, encoder: Encoder) -> Predictor:
    return fit_predictor(x, config=FitConfig(label="tissue", head=HEAD), encoder=encoder)


def test_levels_of_new_samples_are_predicted_in_the_units_of_y(
    levels: Predictor, expression: Make
) -> None:
    new = expression(100, 30, seed=6)
    predicted = levels.predict(new)
    assert list(predicted.var_names) == [f"T{j}" for j in range(12)]
    assert list(predicted.obs_names) == list(new.obs_names)
    assert (predicted.obs["donor"] == new.obs["donor"]).all()
    assert predicted.uns["units"] == "log2_normalized1"
    assert predicted.uns["target_sum"] == 1e4
    true = np.log2(1 + 0.5 * (np.exp2(np.asarray(new.X)[:, :10]) - 1))
    error = ((predicted.X[:, :10] - true) ** 2).mean(0)
    assert (error < 0.5 * true.var(0)).all()


def test_levels_end_at_zero_and_go_to_the_linear_scale(levels: Predictor, expression: Make) -> None:
    new = expression(50, 30, seed=6)
    logged, linear = levels.predict(new), levels.predict(new, linear=True)
    assert logged.X.min() == 0
    np.testing.assert_allclose(linear.X, np.exp2(logged.X) - 1, rtol=1e-3, atol=1e-4)
    assert (linear.uns["units"], linear.uns["target_sum"]) == ("normalized", 1e4)
    assert np.abs(logged.X[:, 10:]).max() < 0.2


def test_signed_scales_are_not_clipped(
    x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder
) -> None:
    centred = y.copy()
    centred.X = (y.X - y.X.mean(0)).astype(np.float32)
    centred.uns = {"units": "log_fold_change"}
    predictor = fit_predictor(x, config=FitConfig(head=HEAD), y=centred, encoder=encoder)
    assert predictor.predict(x).X.min() < -0.1
    with pytest.raises(InputError, match="expected predictions on a log scale"):
        predictor.predict(x, linear=True)


def test_classes_come_as_probabilities_and_a_label(classes: Predictor, expression: Make) -> None:
    new = expression(100, 30, seed=6)
    predicted = classes.predict(new)
    assert list(predicted.var_names) == ["Brain", "Liver"]
    np.testing.assert_allclose(predicted.X.sum(1), 1, atol=1e-5)
    label = predicted.obs["predicted_tissue"].astype(str)
    assert (label == np.where(predicted.X[:, 1] > 0.5, "Liver", "Brain")).all()
    assert (label == new.obs["tissue"]).mean() > 0.85


def test_raw_counts_of_a_new_file_go_through_the_recipe(
    levels: Predictor, expression: Make
) -> None:
    counts = expression(40, 30, seed=7, counts=True)
    by_hand = counts.copy()
    X = np.asarray(counts.X, dtype=np.float64)
    by_hand.X = np.log2(1 + 1e4 * X / X.sum(1, keepdims=True)).astype(np.float32)
    by_hand.uns = {"units": "log2_normalized1", "target_sum": 1e4}
    np.testing.assert_allclose(levels.predict(counts).X, levels.predict(by_hand).X, atol=1e-3)


def test_the_head_sees_the_latents(levels: Predictor, encoder: Encoder, x: anndata.AnnData) -> None:
    expected = np.maximum(levels.head.predict(encoder.transform(x)), 0)
    np.testing.assert_allclose(levels.predict(x).X, expected, atol=1e-5)


def test_without_an_encoder_the_genes_are_the_features(
    x: anndata.AnnData, y: anndata.AnnData, tmp_path: Path
) -> None:
    predictor = fit_predictor(x, config=FitConfig(head=HEAD), y=y)
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_allclose(
        predictor.predict(x[:, order].copy()).X, predictor.predict(x).X, atol=1e-5
    )
    predictor.save(tmp_path / "m")
    again = load_predictor(tmp_path / "m")
    gap = x[:, 1:].copy()
    np.testing.assert_array_equal(again.predict(gap).X, predictor.predict(gap).X)
    filled = x.copy()
    paired = x[x.obs_names.isin(y.obs_names)]
    filled.X[:, 0] = np.asarray(paired.X)[:, 0].mean()
    np.testing.assert_allclose(again.predict(gap).X, predictor.predict(filled).X, atol=1e-4)


@pytest.mark.parametrize("kind", ["levels", "classes"])
def test_a_saved_model_stands_alone(
    kind: str, x: anndata.AnnData, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    predictor: Predictor = request.getfixturevalue(kind)
    predictor.save(tmp_path / "model")
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    again = load_predictor(tmp_path / "elsewhere")
    assert again.config == predictor.config
    before, after = predictor.predict(x), again.predict(x)
    np.testing.assert_array_equal(after.X, before.X)
    pd.testing.assert_frame_equal(after.obs, before.obs)


def test_a_save_that_fails_leaves_the_earlier_model(
    levels: Predictor,
    classes: Predictor,
    x: anndata.AnnData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "model"
    levels.save(folder)

    def broken(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(Encoder, "save", broken)
    with pytest.raises(RuntimeError, match="no room"):
        classes.save(folder)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [folder]
    np.testing.assert_array_equal(load_predictor(folder).predict(x).X, levels.predict(x).X)
    classes.save(folder)
    assert load_predictor(folder).is_classes
    (folder / "notes.txt").write_text("mine")
    levels.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    np.testing.assert_array_equal(load_predictor(folder).predict(x).X, levels.predict(x).X)
    monkeypatch.chdir(folder)
    classes.save(".")
    assert load_predictor(folder).is_classes


@pytest.mark.parametrize("kind", ["levels", "classes"])
def test_what_is_written_is_what_is_predicted(
    kind: str, x: anndata.AnnData, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    predictor: Predictor = request.getfixturevalue(kind)
    shape = predictor.write(x, tmp_path / "p.h5ad")
    written, expected = anndata.read_h5ad(tmp_path / "p.h5ad"), predictor.predict(x)
    assert shape == expected.shape
    np.testing.assert_array_equal(written.X, expected.X)
    assert list(written.obs.columns) == list(expected.obs.columns)
    assert written.uns["units"] == expected.uns["units"]
    with pytest.raises(InputError, match="force"):
        predictor.write(x, tmp_path / "p.h5ad")


def test_samples_unlike_those_of_the_encoder_are_named_where_they_are_predicted(
    levels: Predictor, expression: Make, tmp_path: Path
) -> None:
    new = expression(100, 30, seed=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        levels.write(new, tmp_path / "near.h5ad")
    new.X[:, :10] += 4 * new.X[:, :10].std(axis=0)
    with pytest.warns(M1Warning, match=r"data: (9.|100).\d% of samples are reconstructed worse"):
        levels.write(new, tmp_path / "far.h5ad")


def test_a_column_and_some_targets_may_be_chosen(
    x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder
) -> None:
    config = FitConfig(targets=("T3", "T1"), stratify="tissue", group="donor", head=HEAD)
    predictor = fit_predictor(x, config=config, y=y, encoder=encoder)
    assert list(predictor.predict(x).var_names) == ["T3", "T1"]
    with pytest.raises(InputError, match="stratify: expected a column of obs"):
        fit_predictor(x, config=FitConfig(stratify="site", head=HEAD), y=y, encoder=encoder)


def test_a_numeric_label_is_a_level(x: anndata.AnnData, encoder: Encoder) -> None:
    predictor = fit_predictor(x, config=FitConfig(label="factor", head=HEAD), encoder=encoder)
    predicted = predictor.predict(x)
    assert predicted.shape == (200, 1)
    assert np.corrcoef(predicted.X[:, 0], x.obs["factor"])[0, 1] > 0.8
    assert "predicted_factor" not in predicted.obs


def test_few_labels_fit(x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder) -> None:
    predictor = fit_predictor(x, config=FitConfig(head=HEAD), y=y[:20].copy(), encoder=encoder)
    assert np.isfinite(predictor.predict(x).X).all()


def test_folders_that_are_no_model_are_refused(
    levels: Predictor, encoder: Encoder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="expected a model made by m1pipe fit; found none"):
        load_predictor(tmp_path)
    encoder.save(tmp_path / "run")
    with pytest.raises(InputError, match="found an encoder"):
        load_predictor(tmp_path / "run")
    levels.save(tmp_path / "model")
    (tmp_path / "model" / "head.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="expected a model made by m1pipe fit"):
        load_predictor(tmp_path / "model")
    levels.save(tmp_path / "model")
    stored = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps({**stored, "format_version": 2}))
    with pytest.raises(InputError, match="expected format version 1; found 2"):
        load_predictor(tmp_path / "model")


def _with_gaps(x: anndata.AnnData, seed: int) -> anndata.AnnData:
    made = x.copy()
    made.X[np.random.default_rng(seed).random(x.shape) < 0.1] = np.nan
    assert np.isnan(made.X).any()
    return made


def test_a_head_on_genes_has_what_is_missing_at_the_training_means(
    x: anndata.AnnData, y: anndata.AnnData, expression: Make
) -> None:
    """As if scikit-learn had imputed both tables by the rows that are fitted to."""
    gaps, new = _with_gaps(x, 2), _with_gaps(expression(50, 30, seed=6), 3)
    labelled = np.isin(x.obs_names, y.obs_names)
    imputer = SimpleImputer().fit(np.asarray(gaps.X)[labelled])
    whole, new_whole = gaps.copy(), new.copy()
    whole.X, new_whole.X = (imputer.transform(a.X).astype(np.float32) for a in (gaps, new))
    found = fit_predictor(gaps, config=FitConfig(head=HEAD), y=y)
    expected = fit_predictor(whole, config=FitConfig(head=HEAD), y=y).predict(new_whole).X
    np.testing.assert_allclose(found.predict(new).X, expected, atol=1e-3)


def test_a_head_on_latents_sees_what_the_encoder_makes_of_gaps(
    x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder, expression: Make
) -> None:
    gaps, new = _with_gaps(x, 2), _with_gaps(expression(50, 30, seed=6), 3)
    model = fit_predictor(gaps, config=FitConfig(head=HEAD), y=y, encoder=encoder)
    expected = np.maximum(model.head.predict(encoder.transform(new)), 0)
    np.testing.assert_allclose(model.predict(new).X, expected, atol=1e-6)


def test_own_genes_that_are_missing_stand_at_the_mean_of_training(
    x: anndata.AnnData, y: anndata.AnnData, encoder: Encoder
) -> None:
    known = y.copy()
    known.var["gene_id"] = [*x.var_names[:10], *x.var_names[:2]]
    head = HeadConfig(hidden=(16,), epochs=60, lr=0.01, own_gene=True)
    model = fit_predictor(_with_gaps(x, 2), config=FitConfig(head=head), y=known, encoder=encoder)
    new = _with_gaps(x, 3)
    filled = np.where(np.isnan(new.X), model.recipe.gene_means, new.X)
    expected = model.head.predict(encoder.transform(new), filled[:, model.own_genes])
    np.testing.assert_allclose(model.predict(new).X, np.maximum(expected, 0), atol=1e-5)


def test_a_head_on_few_rows_goes_to_a_folder_and_back(
    x: anndata.AnnData, encoder: Encoder, tmp_path: Path
) -> None:
    few = x[:30].copy()
    model = fit_predictor(few, config=FitConfig(label="tissue", head=HEAD), encoder=encoder)
    assert model.head.chosen["inner_loss"] > 0
    model.save(tmp_path / "m")
    again = load_predictor(tmp_path / "m")
    np.testing.assert_array_equal(again.predict(x).X, model.predict(x).X)
    assert again.head.chosen == model.head.chosen and again.head.curve == model.head.curve
