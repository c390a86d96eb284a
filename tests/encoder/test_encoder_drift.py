"""How far a file lies from the training data: planted shifts are found, same data lie near."""

from collections.abc import Callable

import anndata
import numpy as np
import pytest

from m1pipe.encoder import Encoder
from m1pipe.encoder.drift import encode_with_drift, gap_shift, sampled_drift

Make = Callable[..., anndata.AnnData]


def test_latents_are_those_of_transform(encoder: Encoder, data: anndata.AnnData) -> None:
    Z, drift = encode_with_drift(encoder, data)
    np.testing.assert_array_equal(Z, encoder.transform(data))
    assert drift.n_samples == data.n_obs
    assert drift.missing == ()
    assert drift.gap_shift is None


def test_data_like_training_lie_near(encoder: Encoder, expression: Make) -> None:
    drift = encode_with_drift(encoder, expression(400, seed=2))[1]
    assert drift.gene_shift < 0.2
    assert drift.genes_shifted == 0
    assert drift.beyond < 0.1


def test_a_planted_shift_is_measured_in_training_sds(encoder: Encoder, expression: Make) -> None:
    shifted = expression(400, seed=2)
    shifted.X[:, :10] += 3 * encoder.scaler.scale[:10]
    drift = encode_with_drift(encoder, shifted)[1]
    assert drift.genes_shifted == pytest.approx(10 / 40)
    assert drift.beyond > 0.9
    assert "more than one" in " ".join(drift.lines())


def test_the_gap_is_about_what_it_is_on_the_training_rows(
    encoder: Encoder, data: anndata.AnnData
) -> None:
    present = np.ones(data.n_vars, dtype=bool)
    present[:6] = False
    estimated = gap_shift(encoder, present)
    X = np.asarray(data.X)
    gapped = np.where(present, X, encoder.recipe.gene_means)
    full, part = encoder.encode_array(X), encoder.encode_array(gapped)
    true = np.sqrt(((part - full) ** 2).mean(0)) / full.std(0)
    assert true.max() > 0.05
    np.testing.assert_allclose(estimated, true, rtol=0.35)
    np.testing.assert_array_equal(gap_shift(encoder, np.ones_like(present)), 0)


def test_missing_genes_are_listed_with_their_effect(
    encoder: Encoder, data: anndata.AnnData
) -> None:
    Z, drift = encode_with_drift(encoder, data[:, 5:].copy())
    assert drift.missing == tuple(data.var_names[:5])
    np.testing.assert_array_equal(Z, encoder.transform(data[:, 5:].copy()))
    assert drift.gap_shift is not None
    text = " ".join(drift.lines())
    assert "5 missing genes" in text
    assert data.var_names[0] in text


def test_some_rows_are_judged_as_a_file_of_them_alone(encoder: Encoder, expression: Make) -> None:
    data = expression(400, seed=2)
    data.X[200:, :10] += 3 * encoder.scaler.scale[:10]
    aligned = encoder.align(data, keep_missing=True)
    near, far = (sampled_drift(encoder, aligned, rows) for rows in (np.r_[:200], np.r_[200:400]))
    alone = encode_with_drift(encoder, data[200:].copy())[1]
    assert (far.beyond, far.gene_shift, far.n_samples) == (alone.beyond, alone.gene_shift, 200)
    assert far.is_far and not near.is_far
