"""The training summary against numbers worked out by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from m1pipe.config import EncoderConfig
from m1pipe.encoder import Encoder, summary, train_encoder
from m1pipe.encoder.summary import correlations, library_size, measure
from m1pipe.io.reader import open_matrix
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]


def _scaled(encoder: Encoder, data: anndata.AnnData, samples: tuple[str, ...]) -> np.ndarray:
    X = np.asarray(data[list(samples)].X, dtype=np.float64)
    return (X - encoder.scaler.location) / encoder.scaler.scale


def _r2(X: np.ndarray, fitted: np.ndarray) -> tuple[float, float]:
    """Pooled and median R2 against the training mean, which is 0 on the standardised scale."""
    sse, sst = ((X - fitted) ** 2).sum(0), (X**2).sum(0)
    return 1 - sse.sum() / sst.sum(), float(np.median(1 - sse / sst))


def test_r2_is_that_of_the_held_out_rows(encoder: Encoder, data: anndata.AnnData) -> None:
    X = _scaled(encoder, data, encoder.validation_samples)
    held_out = data[list(encoder.validation_samples)]
    fitted = (encoder.reconstruct(held_out) - encoder.scaler.location) / encoder.scaler.scale
    pooled, median = _r2(X, fitted)
    assert encoder.summary["r2_rows"] == "validation"
    assert encoder.summary["r2"] == pytest.approx(pooled, abs=1e-4)
    assert encoder.summary["r2_median"] == pytest.approx(median, abs=1e-4)
    components = encoder.pca.components
    pooled, median = _r2(X, X @ components.T @ components)
    assert encoder.summary["pca_r2"] == pytest.approx(pooled, abs=1e-4)
    assert encoder.summary["pca_r2_median"] == pytest.approx(median, abs=1e-4)


def test_latent_health_matches_torch_distributions(encoder: Encoder, data: anndata.AnnData) -> None:
    x = torch.from_numpy(_scaled(encoder, data, encoder.validation_samples)).float()
    with torch.no_grad():
        mu, logvar = encoder.module.encode(x)
    posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean(0)
    np.testing.assert_allclose(encoder.summary["kl_per_unit"], kl, rtol=1e-3)
    np.testing.assert_allclose(encoder.summary["mu_variance"], mu.var(0, correction=0), rtol=1e-3)
    active = (kl > 0.05) & (mu.var(0, correction=0) > 0.01)
    assert encoder.summary["active_units"] == int(active.sum())


def test_units_without_signal_are_not_counted(data: anndata.AnnData) -> None:
    wide = {"n_latent": 12, "hidden": [16], "epochs": 20, "linear_skip": False, "beta": 20.0}
    encoder = train_encoder(data, build(EncoderConfig, wide))
    assert encoder.summary["active_units"] < 8


def test_a_plain_autoencoder_has_no_kl(data: anndata.AnnData) -> None:
    config = build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 2, "beta": 0.0})
    found = train_encoder(data, config).summary
    assert found["kl_per_unit"] is None
    assert found["active_units"] == 3


def test_errors_are_judged_by_the_training_rows(encoder: Encoder, data: anndata.AnnData) -> None:
    errors = {}
    for role, samples in (("t", encoder.samples), ("v", encoder.validation_samples)):
        fitted = encoder.reconstruct(data[list(samples)])
        errors[role] = (((data[list(samples)].X - fitted) / encoder.scaler.scale) ** 2).mean(1)
    q99 = np.quantile(errors["t"], 0.99)
    assert encoder.summary["error_q99"] == pytest.approx(q99, rel=1e-3)
    assert encoder.summary["error_beyond"] == pytest.approx((errors["v"] > q99).mean(), abs=0.05)


@pytest.mark.parametrize("memory", ["1G", "200K"])
def test_of_many_training_rows_some_are_measured(
    data: anndata.AnnData, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.write_h5ad(tmp_path / "u.h5ad")
    settings = {"n_latent": 3, "hidden": [8], "epochs": 2, "batch_size": 16, "memory": memory}
    config = build(EncoderConfig, settings)
    whole = train_encoder(tmp_path / "u.h5ad", config)
    monkeypatch.setattr(summary, "MOST_MEASURED", 40)
    encoder = train_encoder(tmp_path / "u.h5ad", config)
    assert whole.summary["n_measured"] == len(whole.samples) > 40 == encoder.summary["n_measured"]
    assert encoder.summary["r2"] == whole.summary["r2"]
    rows = summary.measured_rows(len(encoder.samples), config.training.seed)
    assert len(set(rows.tolist())) == 40
    samples = tuple(np.array(encoder.samples)[rows])
    X = _scaled(encoder, data, samples)
    fitted = encoder.reconstruct(data[list(samples)])
    errors = ((X - (fitted - encoder.scaler.location) / encoder.scaler.scale) ** 2).mean(1)
    assert encoder.summary["error_q99"] == pytest.approx(np.quantile(errors, 0.99), rel=1e-3)


def test_dead_units_are_counted(encoder: Encoder, data: anndata.AnnData) -> None:
    import copy

    module = copy.deepcopy(encoder.module)
    n_hidden = 16 + 16
    with torch.no_grad():
        for layer in module.encoder:
            if isinstance(layer, torch.nn.BatchNorm1d):
                layer.weight[:4] = 0
    X = _scaled(encoder, data, encoder.samples).astype(np.float32)
    found = measure(module, encoder.pca, [X[:100], X[100:]], np.ones(X.shape[1]))
    assert found.dead_share == pytest.approx(4 / n_hidden)
    assert encoder.summary["dead_share"] == 0


def test_library_size_comes_from_obs_or_from_detected_genes(expression: Make) -> None:
    data = expression(50, counts=True)
    found = library_size(open_matrix(data), np.arange(10))
    assert found is not None
    np.testing.assert_array_equal(found[0], (np.asarray(data.X)[:10] > 0).sum(1))
    assert found[1] == "detected genes"
    data.obs["total_counts"] = np.asarray(data.X).sum(1)
    found = library_size(open_matrix(data), np.arange(10))
    assert found is not None
    np.testing.assert_allclose(found[0], np.log(np.asarray(data.X)[:10].sum(1)), rtol=1e-6)
    assert found[1] == "log total_counts"
    data.uns["units"] = "zscore"
    del data.obs["total_counts"]
    assert library_size(open_matrix(data), np.arange(10)) is None


def test_correlations_with_depth_are_pearsons() -> None:
    rng = np.random.default_rng(0)
    Z, depth = rng.normal(size=(60, 3)), rng.normal(size=60)
    Z[:, 0] += depth
    Z[:, 2] = 1.0
    found = correlations(Z.astype(np.float32), depth)
    expected = [np.corrcoef(Z[:, j], depth)[0, 1] for j in range(2)]
    np.testing.assert_allclose(found, [*expected, 0], atol=1e-5)


def test_a_latent_that_follows_library_size_is_seen(data: anndata.AnnData) -> None:
    other = data.copy()
    other.obs["total_counts"] = np.exp(np.asarray(other.X) @ np.linspace(-1, 1, other.n_vars))
    config = build(EncoderConfig, {"n_latent": 4, "hidden": [8], "epochs": 2})
    summary = train_encoder(other, config).summary
    assert summary["depth"] == "log total_counts"
    assert np.abs(summary["depth_r"]).max() > 0.5


def test_the_summary_is_plain_json(encoder: Encoder) -> None:
    text = json.dumps(encoder.summary, allow_nan=False)
    assert json.loads(text) == encoder.summary
    assert encoder.summary["n_rows"] == len(encoder.samples)
    assert encoder.summary["epochs"] == len(encoder.history) == 4
