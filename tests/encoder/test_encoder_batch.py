"""A decoder that is told the batch, and an encoder that is not: shifts vanish, biology stays."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.encoder import Encoder, load_encoder, train_encoder
from m1pipe.encoder.conditional import batch_names, find_batches
from m1pipe.encoder.mixing import adjusted_r2, neighbour_mixing
from m1pipe.errors import InputError, M1Warning
from m1pipe.models.pca_start import unknown_shift_posterior

N_GENES = 40
PLAIN = EncoderConfig(
    model=ModelConfig(n_latent=4, hidden=(16,)),
    training=TrainingConfig(epochs=10, kl_warmup=0.0, validation=0.1),
)


def studies(seed: int, names: str, n: int = 80) -> anndata.AnnData:
    """Two factors of biology, one of them the kind, and a shift of every gene of each study."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(100).normal(size=(2, N_GENES))
    parts, labels = [], []
    for name in names:
        kind = rng.integers(0, 2, n)
        z = np.column_stack([4 * (kind - 0.5), rng.normal(size=n)])
        shift = 3 * rng.normal(size=N_GENES)
        parts.append(8 + z @ loadings + shift + 0.5 * rng.normal(size=(n, N_GENES)))
        labels.append(pd.DataFrame({"study": name, "kind": np.where(kind, "a", "b")}))
    obs = pd.concat(labels, ignore_index=True)
    obs.index = [f"{names}{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=[f"g{j}" for j in range(N_GENES)])
    X = np.concatenate(parts).astype(np.float32)
    return anndata.AnnData(X, obs=obs, var=var, uns=Units("log2_intensity").to_uns())


@pytest.fixture(scope="module")
def data() -> anndata.AnnData:
    return studies(0, "ABC")


@pytest.fixture(scope="module")
def encoder(data: anndata.AnnData) -> Encoder:
    return train_encoder(data, replace(PLAIN, model=replace(PLAIN.model, batch=("study",))))


def explained(Z: np.ndarray, column: pd.Series) -> float:
    return adjusted_r2([Z - Z.mean(axis=0)], [pd.factorize(column)[0]])[0]


def test_planted_shifts_vanish_and_planted_biology_stays(
    data: anndata.AnnData, encoder: Encoder
) -> None:
    plain = train_encoder(data, PLAIN).transform(data)
    told = encoder.transform(data)
    assert explained(plain, data.obs["study"]) > 0.4
    assert explained(told, data.obs["study"]) < 0.05
    assert explained(told, data.obs["kind"]) > 0.6 > 0.4 > explained(plain, data.obs["kind"])
    found = encoder.summary["batches"]
    genes, latents = found["r2"]["study"]
    assert genes > 0.4 and latents == pytest.approx(explained(told, data.obs["study"]), abs=0.02)
    assert found["r2"]["kind"][1] > 0.6
    assert found["mixing"] > 0.6 > 0.1 > neighbour_mixing(plain, pd.factorize(data.obs["study"])[0])


def test_the_encoder_is_not_told(data: anndata.AnnData, encoder: Encoder) -> None:
    """Latents are the same whatever the column says, or where there is none."""
    other = data.copy()
    other.obs["study"] = other.obs["study"].map({"A": "B", "B": "Z", "C": "A"})
    without = data.copy()
    del without.obs["study"]
    for changed in (other, without):
        np.testing.assert_array_equal(encoder.transform(changed), encoder.transform(data))
    assert encoder.module.encoder.n_out == 16 and not encoder.needs_class


def test_a_new_study_is_decoded_as_of_an_average_batch(encoder: Encoder) -> None:
    new = studies(7, "N", n=30)
    Z = encoder.transform(new)
    codes = np.arange(3)
    of_each = [encoder.decode(Z, np.full(30, code)) for code in codes]
    told = encoder.reconstruct(new)
    np.testing.assert_array_equal(told, encoder.decode(Z))
    assert np.abs(of_each[0] - of_each[1]).mean() > 1
    low, high = np.min(of_each, axis=0), np.max(of_each, axis=0)
    inside = ((told > low - 0.3) & (told < high + 0.3)).mean()
    assert inside > 0.95


def test_stored_and_read_back(encoder: Encoder, data: anndata.AnnData, tmp_path: Path) -> None:
    encoder.save(tmp_path / "run")
    again = load_encoder(tmp_path / "run")
    for name in ("transform", "reconstruct", "pca_scores"):
        np.testing.assert_array_equal(getattr(again, name)(data), getattr(encoder, name)(data))
    assert again.condition is not None and again.condition.is_batch
    assert "its decoder given study" in repr(again)


def test_unknown_shifts_are_marginalised() -> None:
    """The same as Gaussian conditioning of the latents on genes whose covariance has the shifts."""
    rng = np.random.default_rng(0)
    W, S = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    psi = rng.uniform(0.5, 2, 12)
    whole = W @ W.T + S @ S.T + np.diag(psi)
    expected = W.T @ np.linalg.inv(whole)
    weight, logvar = unknown_shift_posterior(*map(torch.from_numpy, (W, S, psi)), 1.0)
    np.testing.assert_allclose(weight.numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(np.exp(logvar.numpy()), np.diag(np.eye(3) - expected @ W))


def test_adjusted_r2_against_its_definition() -> None:
    rng = np.random.default_rng(1)
    X, codes = rng.normal(size=(60, 5)), np.arange(60) % 4
    X += codes[:, None] * 0.5
    model = np.stack([X[codes == k].mean(axis=0) for k in range(4)])[codes]
    r2 = 1 - ((X - model) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    found = adjusted_r2([X[:25], X[25:]], [codes, np.full(60, -1) + np.r_[np.ones(60, int)]])
    assert found[0] == pytest.approx(1 - (1 - r2) * 59 / 56)


def test_mixing_is_one_by_chance_and_zero_apart() -> None:
    rng = np.random.default_rng(2)
    Z, batches = rng.normal(size=(600, 2)), np.arange(600) % 3
    assert neighbour_mixing(Z, batches) == pytest.approx(1, abs=0.05)
    assert neighbour_mixing(Z + 100 * batches[:, None], batches) == 0


def test_several_columns_name_a_batch_together(data: anndata.AnnData) -> None:
    names = batch_names(data.obs, ("study", "kind"))
    assert set(names) == {f"{s} / {k}" for s in "ABC" for k in "ab"}
    assert set(batch_names(data.obs, ("study", "site"))) == {None}


def test_what_cannot_be_a_batch_is_refused_and_what_goes_with_it_told(
    data: anndata.AnnData,
) -> None:
    obs, rows = data.obs.copy(), np.arange(len(data))
    with pytest.raises(InputError, match=r"expected column 'site' .*found study, kind"):
        find_batches(obs, ("site",), rows, "u")
    obs["site"] = "one"
    with pytest.raises(InputError, match=r"expected 2 to 200 batches .*; found 1 by site"):
        find_batches(obs, ("site",), rows, "u")
    obs["site"] = np.where(obs["study"] == "A", "north", "south")
    with pytest.warns(M1Warning, match=r"batch study goes with site \(Cramer's V 1.00\)"):
        find_batches(obs, ("study",), rows, "u")
    with pytest.raises(InputError, match="expected no condition beside it"):
        ModelConfig(batch=("study",), condition="kind")
