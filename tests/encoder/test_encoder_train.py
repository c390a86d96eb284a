"""Training an encoder: what is fitted sees training rows only, and the best of PCA is kept."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import norm
from sklearn.decomposition import PCA as Reference

from m1pipe.config import EncoderConfig
from m1pipe.config.presets import preset_options
from m1pipe.encoder import Encoder, load_encoder, train_encoder
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.settings import build
from m1pipe.training.history import Observer

Make = Callable[..., anndata.AnnData]
TINY = {"n_latent": 4, "hidden": [16], "epochs": 3, "seed": 3}


def test_scaler_and_pca_are_of_the_training_rows(encoder: Encoder, data: anndata.AnnData) -> None:
    assert len(encoder.samples) == 216
    assert len(encoder.validation_samples) == 24
    X = np.asarray(data[list(encoder.samples)].X, dtype=np.float64)
    np.testing.assert_allclose(encoder.scaler.location, X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(encoder.scaler.scale, X.std(0), rtol=1e-5)
    np.testing.assert_allclose(encoder.recipe.gene_means, X.mean(0), rtol=1e-5)
    scaled = (X - X.mean(0)) / X.std(0)
    reference = Reference(4, svd_solver="full").fit(scaled)
    alignment = np.abs(np.sum(reference.components_ * encoder.pca.components, axis=1))
    np.testing.assert_allclose(alignment, 1, atol=1e-4)


def test_validation_rows_change_nothing_that_is_fitted(
    data: anndata.AnnData, encoder: Encoder, small_config: EncoderConfig
) -> None:
    other = data.copy()
    held_out = other.obs_names.get_indexer(list(encoder.validation_samples))
    other.X[held_out] += 3.0
    again = train_encoder(other, small_config)
    assert again.validation_samples == encoder.validation_samples
    np.testing.assert_array_equal(again.scaler.scale, encoder.scaler.scale)
    np.testing.assert_array_equal(again.pca.components, encoder.pca.components)
    assert again.history[0]["train_loss"] == encoder.history[0]["train_loss"]
    assert again.history[0]["val_loss"] != encoder.history[0]["val_loss"]


def test_training_is_repeatable_and_the_seed_matters(
    data: anndata.AnnData, encoder: Encoder, small_config: EncoderConfig
) -> None:
    again = train_encoder(data, small_config)
    assert again.transform(data).tobytes() == encoder.transform(data).tobytes()
    other = train_encoder(data, build(EncoderConfig, {**TINY, "epochs": 4, "seed": 4}))
    assert np.abs(other.transform(data) - encoder.transform(data)).max() > 0.01


@pytest.mark.parametrize("beta", [1.0, 0.0])
def test_reconstruction_is_at_least_that_of_pca(data: anndata.AnnData, beta: float) -> None:
    config = build(EncoderConfig, {**TINY, "epochs": 30, "beta": beta})
    summary = train_encoder(data, config).summary
    assert summary["r2"] > summary["pca_r2"] - 0.05
    assert summary["r2_median"] > summary["pca_r2_median"] - 0.05


def test_streaming_reads_each_row_and_learns_as_much(data: anndata.AnnData, tmp_path: Path) -> None:
    data.write_h5ad(tmp_path / "x.h5ad")
    config = {**TINY, "epochs": 8, "batch_size": 16}
    held = train_encoder(tmp_path / "x.h5ad", build(EncoderConfig, config))
    streamed = train_encoder(tmp_path / "x.h5ad", build(EncoderConfig, {**config, "memory": "36K"}))
    np.testing.assert_allclose(streamed.pca.components, held.pca.components, atol=1e-4)
    assert streamed.summary["r2"] == pytest.approx(held.summary["r2"], abs=0.03)
    assert streamed.validation_samples == held.validation_samples


def test_a_run_stopped_and_resumed_ends_with_the_same_bits(
    data: anndata.AnnData, encoder: Encoder, small_config: EncoderConfig, tmp_path: Path
) -> None:
    from m1pipe.encoder.plan import plan_training
    from m1pipe.encoder.train import train_planned
    from m1pipe.training.signals import StopFlag

    stop = StopFlag()
    checkpoint = tmp_path / "resume.pt"

    def at_third_epoch(step: dict[str, float]) -> None:
        if (step["epoch"], step["step"]) == (3, 2):
            stop.set("the test")

    plan = plan_training(data, small_config)
    with pytest.raises(StoppedBySignalError, match="in epoch 3, after step 2"):
        train_planned(
            plan, checkpoint=checkpoint, stop=stop, observer=Observer(on_step=at_third_epoch)
        )
    resumed = train_encoder(data, small_config, checkpoint=checkpoint, resume=True)
    for name, value in encoder.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name
    assert [row["val_loss"] for row in resumed.history] == [
        row["val_loss"] for row in encoder.history
    ]


@pytest.mark.parametrize("preset", ["notebook", "vaexprs", "dee2", "overview", "m1"])
def test_every_preset_trains(data: anndata.AnnData, preset: str) -> None:
    small = {"epochs": 2, "n_latent": 3}
    if preset == "m1":
        small["hidden"] = (32, 16)  # type: ignore[assignment]
    if preset in ("dee2", "overview"):
        small["transform"] = "minmax"  # type: ignore[assignment]
    encoder = train_encoder(data, build(EncoderConfig, preset_options(preset), small))
    assert np.isfinite(encoder.transform(data)).all()
    assert encoder.summary["epochs"] == 2


def test_an_encoder_of_fewer_genes_takes_whole_files(data: anndata.AnnData, tmp_path: Path) -> None:
    uneven = data.copy()
    uneven.X = uneven.X * np.geomspace(0.05, 2, uneven.n_vars, dtype=np.float32)
    uneven.uns = {"units": "log2_intensity"}
    encoder = train_encoder(uneven, build(EncoderConfig, {**TINY, "min_variance": 0.5}))
    assert 4 < len(encoder.genes) < uneven.n_vars
    encoder.save(tmp_path / "run")
    loaded = load_encoder(tmp_path / "run")
    latents = loaded.transform(uneven)
    np.testing.assert_array_equal(latents, encoder.transform(uneven[:, list(encoder.genes)]))
    assert loaded.reconstruct(uneven).shape == (uneven.n_obs, len(encoder.genes))


def _trained_error(settings: dict[str, object]) -> tuple[float, np.ndarray]:
    """Mean squared error on the rows trained on, standardised noise, and these rows."""
    X = np.random.default_rng(0).normal(size=(60, 12))
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    names = [f"g{j}" for j in range(12)]
    more = {"n_latent": 64, "epochs": 400, "lr": 1e-2, "validation": 0.0, "transform": "none"}
    encoder = train_encoder((X, names), build(EncoderConfig, settings, more))
    fitted = encoder.reconstruct((X, names))
    return float(((X - fitted) ** 2).mean()), X


def test_a_sigmoid_cannot_go_below_its_floor_on_z_scores() -> None:
    """The best output in (0, 1) leaves 0.575 of N(0, 1); a linear one leaves next to nothing."""
    below = integrate.quad(lambda x: x**2 * norm.pdf(x), -np.inf, 0)[0]
    above = integrate.quad(lambda x: (x - 1) ** 2 * norm.pdf(x), 1, np.inf)[0]
    assert below + above == pytest.approx(0.575, abs=1e-3)
    published, X = _trained_error(preset_options("dee2"))
    floor = float(((X - X.clip(0, 1)) ** 2).mean())
    assert floor == pytest.approx(below + above, abs=0.05)
    assert floor <= published < floor + 0.1
    linear, _ = _trained_error({**preset_options("dee2"), "output_activation": "identity"})
    assert linear < 0.2 * floor


def test_the_log_normal_of_published_work_trains(data: anndata.AnnData) -> None:
    chosen = {**TINY, "likelihood": "log_normal", "transform": "none", "linear_skip": False}
    encoder = train_encoder(data, build(EncoderConfig, chosen))
    assert np.isfinite([row["train_loss"] for row in encoder.history]).all()


def test_a_constant_gene_never_blows_up(data: anndata.AnnData) -> None:
    other = data.copy()
    other.X[:, 7] = 2.0
    encoder = train_encoder(other, build(EncoderConfig, TINY))
    other.X[0, 7] = 5.0
    assert np.abs(encoder.transform(other)).max() < 100
    assert np.isfinite(encoder.reconstruct(other)).all()


def test_odd_shapes_train() -> None:
    rng = np.random.default_rng(0)
    for n, p in ((2, 5), (3, 1), (17, 3), (5, 60)):
        X = rng.normal(size=(n, p)).astype(np.float32)
        genes = [f"g{j}" for j in range(p)]
        encoder = train_encoder((X, genes), build(EncoderConfig, TINY))
        assert encoder.transform((X, genes)).shape == (n, 4)
        assert np.isfinite(encoder.transform((X, genes))).all()
    same = np.ones((8, 3), np.float32)
    encoder = train_encoder((same, ["a", "b", "c"]), build(EncoderConfig, TINY))
    assert np.isfinite(encoder.reconstruct((same, ["a", "b", "c"]))).all()


def test_a_value_that_is_not_finite_is_named(data: anndata.AnnData) -> None:
    other = data.copy()
    other.X[2, 1] = np.inf
    with pytest.raises(InputError, match=r"inf in sample 's0_2', gene 'ENSG00000000002'"):
        train_encoder(other, build(EncoderConfig, TINY))
