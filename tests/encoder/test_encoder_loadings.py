"""Loadings: the decoder's Jacobian, numpy's correlations, and planted gene sets found again."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import Encoder, train_encoder
from m1pipe.encoder.loadings import Loadings, correlation_loadings, decoder_loadings, unit_weights
from m1pipe.errors import InputError
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def _trained(data: anndata.AnnData, **options: object) -> Encoder:
    return train_encoder(data, build(EncoderConfig, {"n_latent": 4, "epochs": 3}, options))


def _jacobian(encoder: Encoder) -> np.ndarray:
    """d(expected level) / dz at the latents of the mean sample, (n_latent, n_genes)."""
    z = torch.from_numpy(encoder.encode_array(encoder.recipe.gene_means[None]))[0]
    scale = torch.from_numpy(encoder.latent_scale)

    def level(z: torch.Tensor) -> torch.Tensor:
        expected = encoder.module.likelihood.mean(encoder.module.decode(z[None] / scale))[0]
        return torch.log2(1 + expected) if encoder.units.is_counts else expected

    J: np.ndarray = torch.autograd.functional.jacobian(level, z).numpy().T
    return J * encoder.scaler.scale


def _by_jacobian(encoder: Encoder, found: Loadings) -> np.ndarray:
    """The rows of a table of loadings by the Jacobian."""
    places = [int(name[1:]) - 1 for name in found.obs.index]
    return _jacobian(encoder)[places] * found.obs["sd"].to_numpy()[:, None]


def test_a_linear_decoder_gives_its_jacobian(expression: Make) -> None:
    data = expression()
    encoder = _trained(data, hidden=[], decoder_hidden=[])
    found = decoder_loadings(encoder)
    np.testing.assert_allclose(found.values, _by_jacobian(encoder, found), atol=1e-4)
    validation = data[list(encoder.validation_samples)]
    assert found.obs["sd"].to_numpy() == pytest.approx(encoder.transform(validation).std(axis=0))
    assert found.obs.index.tolist() == ["z1", "z2", "z3", "z4"]
    assert found.units.name == "log_fold_change"
    assert found.to_frame().shape == (4, 40)
    assert found.var["symbol"].tolist()[:2] == ["SYM0", "SYM1"]


def test_a_curved_decoder_gives_nearly_its_jacobian(expression: Make) -> None:
    encoder = _trained(expression(), hidden=[16], activation="tanh", linear_skip=False, epochs=20)
    found = decoder_loadings(encoder)
    assert np.corrcoef(found.values.ravel(), _by_jacobian(encoder, found).ravel())[0, 1] > 0.95


def test_weights_are_lengths_of_the_jacobian_on_standardised_genes(expression: Make) -> None:
    encoder = _trained(expression(), hidden=[], decoder_hidden=[])
    expected = np.linalg.norm(_jacobian(encoder) / encoder.scaler.scale, axis=1)
    np.testing.assert_allclose(unit_weights(encoder), expected, rtol=1e-4)


def test_weighed_latents_lie_apart_as_their_levels_do(expression: Make) -> None:
    data = expression()
    encoder = _trained(data, hidden=[], decoder_hidden=[])
    Z = encoder.transform(data)
    of_levels = pdist(encoder.scaled(encoder.decode(Z)))
    weighed, plain = (
        np.corrcoef(pdist(W), of_levels)[0, 1]
        for W in (Z * unit_weights(encoder), encoder.unit_latents(Z))
    )
    assert weighed > 0.998 > 0.98 > plain
    assert np.corrcoef(pdist(Z), of_levels)[0, 1] > 0.998
    assert np.median(pdist(Z * unit_weights(encoder)) / of_levels) == pytest.approx(1, abs=0.02)


def test_correlations_are_those_of_numpy(expression: Make, encoder: Encoder) -> None:
    data = expression(90, seed=4)
    data.X[:, 5] = 3.0
    found = correlation_loadings(encoder, data[:, ::-1])
    Z, X = encoder.transform(data), np.asarray(data.X, dtype=float)
    varying = np.flatnonzero(X.std(axis=0) > 0)
    expected = np.corrcoef(Z.T, X[:, varying].T)[:4, 4:]
    np.testing.assert_allclose(found.values[:, varying], expected, atol=1e-5)
    assert (found.values[:, 5] == 0).all()


def test_a_gene_that_the_data_lack_is_not_measured(expression: Make, encoder: Encoder) -> None:
    found = correlation_loadings(encoder, expression(90, seed=4)[:, 1:])
    assert np.isnan(found.values[:, 0]).all()
    assert np.isfinite(found.values[:, 1:]).all()


def test_a_conditional_model_and_one_of_counts_have_loadings(expression: Make) -> None:
    conditional = _trained(expression(), condition="tissue")
    assert decoder_loadings(conditional).values.shape == (4, 40)
    assert np.abs(correlation_loadings(conditional, expression(seed=2)).values).max() <= 1
    assert (unit_weights(conditional) > 0).all()
    counts = expression(counts=True)
    counted = _trained(counts, likelihood="negative_binomial", transform="none", epochs=20)
    assert decoder_loadings(counted).units.name == "log_fold_change"
    assert (unit_weights(counted) > 0).all()
    found = decoder_loadings(counted)
    assert np.corrcoef(found.values.ravel(), _by_jacobian(counted, found).ravel())[0, 1] > 0.95
    Z, X = counted.transform(counts), counted.inputs(np.asarray(counts.X))
    expected = np.corrcoef(Z.T, X.T)[:4, 4:]
    np.testing.assert_allclose(correlation_loadings(counted, counts).values, expected, atol=1e-5)


def test_units_that_carry_nothing_are_left_out(encoder: Encoder) -> None:
    summary = {**encoder.summary, "kl_per_unit": [1.0, 0.0, 1.0, 1.0]}
    found = decoder_loadings(replace(encoder, summary=summary))
    assert found.obs.index.tolist() == ["z1", "z3", "z4"]
    np.testing.assert_array_equal(found.values, decoder_loadings(encoder).values[[0, 2, 3]])
    dead = replace(encoder, summary={**summary, "kl_per_unit": [0.0] * 4})
    with pytest.raises(InputError, match="none of 4: train with a lower beta"):
        decoder_loadings(dead)


def _programmes(folder: Path) -> None:
    """Samples with three programmes of thirty genes among 300, and a GMT that names them."""
    rng = np.random.default_rng(5)
    members = np.zeros((3, 300))
    for k in range(3):
        members[k, 30 * k : 30 * (k + 1)] = 1
    X = 5 + rng.normal(size=(300, 3)) @ members + 0.5 * rng.normal(size=(300, 300))
    data = anndata.AnnData(X=X.astype(np.float32), uns={"units": "log2_tpm1"})
    data.var_names = [f"G{j}" for j in range(300)]
    data.write_h5ad(folder / "u.h5ad")
    sets = {f"programme{k}": range(30 * k, 30 * (k + 1)) for k in range(3)}
    sets |= {f"other{k}": range(100 + 30 * k, 130 + 30 * k) for k in range(5)}
    lines = ["\t".join([name, "", *(f"G{j}" for j in genes)]) for name, genes in sets.items()]
    (folder / "sets.gmt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("by", [[], ["--data", "u.h5ad"]], ids=["decoder", "correlation"])
def test_enrich_finds_planted_programmes_in_loadings(
    by: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    _programmes(tmp_path)
    assert run(["train", "u.h5ad", "--out", "vae", "--latent", "3", "--epochs", "5"]) == 0
    assert run(["loadings", "vae", "--out", "l.h5ad", *by]) == 0
    assert "3 of 3 latent units x 300 genes" in capsys.readouterr().out
    enrich = ["enrich", "l.h5ad", "--gene-sets", "sets.gmt", "--top", "60"]
    assert run([*enrich, "--out", "go.h5ad", "--max-prevalence", "1"]) == 0
    found = anndata.read_h5ad("go.h5ad")
    assert set(found.var_names) == {"programme0", "programme1", "programme2"}
    assert run(["loadings", "vae", "--out", "l.h5ad"]) == 1
