"""A trained encoder gives the same latents however the data come, and after save and load."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from m1pipe.encoder import Encoder, load_encoder
from m1pipe.encoder.trained import FILES
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix


def test_every_form_of_data_gives_the_same_latents(
    encoder: Encoder, data: anndata.AnnData, tmp_path: Path
) -> None:
    expected = encoder.transform(data)
    assert expected.shape == (data.n_obs, 4)
    assert expected.std(axis=0).min() > 0.1
    data.write_h5ad(tmp_path / "x.h5ad")
    frame = data.to_df()
    frame.attrs = dict(data.uns)
    with open_matrix(tmp_path / "x.h5ad") as matrix:
        forms = [tmp_path / "x.h5ad", str(tmp_path / "x.h5ad"), frame, matrix]
        for form in [*forms, encoder.align(data)]:
            np.testing.assert_array_equal(encoder.transform(form), expected)
    with pytest.warns(UserWarning, match="taken as they are"):
        Z = encoder.transform((data.X, data.var_names))
    np.testing.assert_array_equal(Z, expected)


def test_gene_order_and_extra_genes_do_not_matter(encoder: Encoder, data: anndata.AnnData) -> None:
    order = np.random.default_rng(0).permutation(data.n_vars)
    extra = data[:, :3].copy()
    extra.var_names = ["A", "B", "C"]
    other = anndata.concat([data[:, order], extra], axis=1)
    other.uns = dict(data.uns)
    np.testing.assert_array_equal(encoder.transform(other), encoder.transform(data))


def test_latents_are_posterior_means_and_do_not_depend_on_the_batch(
    encoder: Encoder, data: anndata.AnnData
) -> None:
    X = np.asarray(data.X)
    x = torch.from_numpy((X - encoder.scaler.location) / encoder.scaler.scale)
    with torch.no_grad():
        mu = encoder.module.encode(x)[0].numpy()
    mu *= encoder.latent_scale
    np.testing.assert_allclose(encoder.encode_array(X), mu, atol=1e-5)
    one_by_one = np.concatenate([encoder.encode_array(X[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one_by_one, mu[:5], atol=1e-5)


def test_raw_counts_go_through_the_recipe_of_training(
    encoder: Encoder, expression: Callable[..., anndata.AnnData]
) -> None:
    counts = expression(30, seed=5, counts=True)
    X = np.asarray(counts.X, dtype=np.float64)
    by_hand = np.log2(1 + 1e4 * X / X.sum(1, keepdims=True))
    expected = encoder.encode_array(by_hand.astype(np.float32))
    np.testing.assert_allclose(encoder.transform(counts), expected, atol=1e-4)


def test_decoding_is_in_the_units_of_the_data(encoder: Encoder, data: anndata.AnnData) -> None:
    fitted = encoder.reconstruct(data)
    np.testing.assert_array_equal(fitted, encoder.decode(encoder.transform(data)))
    X = np.asarray(data.X)
    residual = ((X - fitted) ** 2).sum() / ((X - X.mean(0)) ** 2).sum()
    assert residual < 0.3


def test_pca_scores_are_those_of_the_stored_components(
    encoder: Encoder, data: anndata.AnnData
) -> None:
    X = (np.asarray(data.X) - encoder.scaler.location) / encoder.scaler.scale
    expected = (X - encoder.pca.mean) @ encoder.pca.components.T
    np.testing.assert_allclose(encoder.pca_scores(data), expected, atol=1e-4)


def test_no_samples_give_no_latents(encoder: Encoder, data: anndata.AnnData) -> None:
    assert encoder.transform(data[:0].copy()).shape == (0, 4)
    assert encoder.decode(np.empty((0, 4))).shape == (0, data.n_vars)


def test_save_and_load_change_nothing(
    encoder: Encoder, data: anndata.AnnData, tmp_path: Path
) -> None:
    encoder.save(tmp_path / "run")
    again = load_encoder(tmp_path / "run")
    np.testing.assert_array_equal(again.transform(data), encoder.transform(data))
    np.testing.assert_array_equal(again.reconstruct(data), encoder.reconstruct(data))
    np.testing.assert_array_equal(again.pca_scores(data), encoder.pca_scores(data))
    np.testing.assert_array_equal(again.recipe.gene_means, encoder.recipe.gene_means)
    assert again.config == encoder.config
    assert again.summary == encoder.summary
    assert again.history == encoder.history
    assert again.samples == encoder.samples
    assert again.validation_samples == encoder.validation_samples
    assert again.genes == tuple(data.var_names)
    assert again.units == encoder.units


def test_what_is_saved_is_weights_and_text(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "run")
    files = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert files == sorted(FILES)
    for file in (tmp_path / "run").iterdir():
        with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, IndexError, EOFError)):
            pickle.loads(file.read_bytes())
    roles = pd.read_csv(tmp_path / "run" / "samples.csv")
    assert roles["role"].value_counts().to_dict() == {
        "train": len(encoder.samples),
        "validation": len(encoder.validation_samples),
    }


@pytest.fixture
def run(encoder: Encoder, tmp_path: Path) -> Path:
    encoder.save(tmp_path / "run")
    return tmp_path / "run"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a trained model with model\.json; found none"):
        load_encoder(tmp_path)


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(InputError, match="training is not finished"):
        load_encoder(tmp_path)


def test_another_format_version_is_refused(run: Path) -> None:
    stored = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**stored, "format_version": 99}))
    with pytest.raises(InputError, match="expected format version 1; found 99"):
        load_encoder(run)


def test_damaged_files_are_refused(run: Path) -> None:
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors: expected weights"):
        load_encoder(run)
    (run / "model.json").write_text("{")
    with pytest.raises(InputError, match=r"model\.json: expected JSON"):
        load_encoder(run)


def test_files_of_different_models_are_refused(run: Path) -> None:
    stored = json.loads((run / "model.json").read_text())
    stored["config"]["model"]["n_latent"] = 5
    (run / "model.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="do not fit together"):
        load_encoder(run)


def test_swapped_gene_names_are_refused(run: Path) -> None:
    stored = json.loads((run / "model.json").read_text())
    stored["recipe"]["genes"] = stored["recipe"]["genes"][:-1]
    (run / "model.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="39 genes and 40 means"):
        load_encoder(run)
