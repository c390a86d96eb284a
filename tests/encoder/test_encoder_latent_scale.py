"""Latents on their own scale: planted loadings, numpy's least squares, the same network."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata.io import read_h5ad
from numpy.testing import assert_allclose, assert_array_equal

from m1pipe import VAE
from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import Encoder, load_encoder, train_encoder
from m1pipe.encoder.latent_scale import FLOOR, decoder_scale
from m1pipe.encoder.likelihood import log_likelihood
from m1pipe.errors import InputError
from m1pipe.models.vae import network_inputs
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]
SHORT = {"n_latent": 4, "hidden": [16], "epochs": 4, "seed": 3}


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def _planted(
    n: int, lengths: list[float], *, p: int = 300, noise: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Latents of sd 1 and levels that they make, with loadings of these lengths, and noise."""
    rng = np.random.default_rng(5)
    loadings = rng.normal(size=(len(lengths), p))
    loadings *= (np.array(lengths) / np.linalg.norm(loadings, axis=1))[:, None]
    Z = rng.normal(size=(n, len(lengths)))
    return Z, (Z @ loadings + noise * rng.normal(size=(n, p))).astype(np.float32)


def _blocks(G: np.ndarray, n_rows: int = 70) -> Iterator[np.ndarray]:
    return (G[start : start + n_rows] for start in range(0, len(G), n_rows))


def test_planted_loadings_are_measured() -> None:
    Z, G = _planted(400, [9.0, 3.0, 1.3])
    found = decoder_scale(Z, _blocks(G))
    assert found.dtype == np.float32
    assert_allclose(found, [9.0, 3.0, 1.3], rtol=0.02)


def test_few_rows_do_not_lengthen_loadings() -> None:
    Z, G = _planted(60, [30.0, 10.0, 0.0, 0.0], p=2000, noise=1.0)
    centred = Z - Z.mean(axis=0)
    plain = np.linalg.norm(np.linalg.lstsq(centred, G - G.mean(axis=0), rcond=None)[0], axis=1)
    found = decoder_scale(Z, _blocks(G))
    assert plain[2:].min() > 5.0 > 1.5 > found[2:].max()
    assert_allclose(found[:2], [30.0, 10.0], rtol=0.03)


def test_a_unit_that_stands_still_weighs_next_to_nothing() -> None:
    Z, G = _planted(400, [9.0, 3.0])
    Z = np.column_stack([Z, np.full(400, 0.25), 1e-9 * Z[:, 0]])
    found = decoder_scale(Z, _blocks(G))
    assert_allclose(found[:2], [9.0, 3.0], rtol=0.02)
    assert_allclose(found[2:], FLOOR * 9.0, rtol=0.1)


def test_a_unit_times_a_number_gives_the_same_scaled_latents() -> None:
    Z, G = _planted(400, [9.0, 3.0, 0.0])
    factor = np.array([100.0, 0.01, 1e-3])
    scaled = Z * decoder_scale(Z, _blocks(G))
    assert_allclose(Z * factor * decoder_scale(Z * factor, _blocks(G)), scaled, rtol=1e-4)


def test_mean_and_blocks_do_not_matter() -> None:
    Z, G = _planted(400, [9.0, 3.0])
    expected = decoder_scale(Z, [G])
    assert_allclose(decoder_scale(Z + 7.0, _blocks(G + 2.0, 33)), expected, rtol=1e-4)


def test_singular_latents_have_a_scale() -> None:
    Z, G = _planted(400, [9.0, 3.0])
    twins = decoder_scale(np.column_stack([Z, Z[:, 1]]), _blocks(G))
    assert_allclose(twins, [9.0, 1.5, 1.5], rtol=0.02)
    wide, levels = _planted(12, [2.0] * 20)
    found = decoder_scale(wide, [levels])
    assert np.isfinite(found).all() and (found > 0).all()


def test_nothing_to_weigh_is_left_as_it_is() -> None:
    _, G = _planted(50, [1.0])
    assert_array_equal(decoder_scale(np.zeros((50, 3)), [G]), np.ones(3))
    with pytest.raises(ValueError, match="expected levels of 50 samples; found 20"):
        decoder_scale(np.ones((50, 3)), [G[:20]])


def _trained(data: anndata.AnnData, **options: object) -> Encoder:
    return train_encoder(data, build(EncoderConfig, SHORT, options))


def _by_least_squares(encoder: Encoder, rows: anndata.AnnData, centre: np.ndarray) -> np.ndarray:
    """Lengths of the loadings of the network's own latents, noise subtracted, by numpy."""
    Z = encoder.unit_latents(encoder.transform(rows)).astype(np.float64)
    Z -= Z.mean(axis=0)
    G = encoder.inputs(np.asarray(rows.X), encoder.codes(encoder.align(rows).matrix)) - centre
    G = (G - G.mean(axis=0)).astype(np.float64)
    W, left, rank, _ = np.linalg.lstsq(Z, G, rcond=None)
    noise = left.sum() / (len(Z) - 1 - rank) * np.diag(np.linalg.inv(Z.T @ Z))
    lengths: np.ndarray = np.sqrt((W**2).sum(axis=1) - noise)
    return lengths


def test_scale_of_an_encoder_is_by_least_squares_of_its_training_rows(
    encoder: Encoder, data: anndata.AnnData
) -> None:
    rows = data[list(encoder.samples)]
    expected = _by_least_squares(encoder, rows, encoder.pca.mean)
    assert expected.max() > 1.3 * expected.min()
    assert_allclose(encoder.latent_scale, expected, rtol=1e-4)


def test_of_counts_it_is_that_of_their_logarithms(expression: Make) -> None:
    data = expression(counts=True)
    encoder = _trained(data, likelihood="negative_binomial", transform="none")
    rows = data[list(encoder.samples)]
    seen = network_inputs(encoder.module, np.asarray(rows.X))
    assert np.abs(seen.std(axis=0) - 1).max() < 0.05
    assert_allclose(encoder.inputs(np.asarray(rows.X)), seen)
    assert_allclose(
        encoder.latent_scale, _by_least_squares(encoder, rows, encoder.pca.mean), rtol=1e-3
    )


def test_of_a_conditional_model_genes_are_about_their_class(expression: Make) -> None:
    data = expression()
    data.X[data.obs["tissue"] == "Liver"] += np.float32(3.0)
    encoder = _trained(data, condition="tissue")
    assert encoder.condition is not None
    rows = data[list(encoder.samples)]
    codes = encoder.condition.codes(rows.obs, "rows")
    means = encoder.pca.mean + encoder.condition.shift
    assert np.abs(encoder.condition.shift).max() > 0.3
    assert_allclose(encoder.latent_scale, _by_least_squares(encoder, rows, means[codes]), rtol=1e-3)


def test_missing_levels_stand_at_their_means(expression: Make) -> None:
    data = expression()
    data.X[np.random.default_rng(0).random(data.shape) < 0.05] = np.nan
    encoder = _trained(data)
    assert encoder.summary["n_missing"] > 100
    rows = data[list(encoder.samples)]
    assert_allclose(
        encoder.latent_scale, _by_least_squares(encoder, rows, encoder.pca.mean), rtol=1e-3
    )


def test_the_network_is_the_same_whatever_the_scale(
    encoder: Encoder, data: anndata.AnnData, expression: Make
) -> None:
    unit = _trained(data, latent_scale="unit")
    assert_array_equal(unit.latent_scale, np.ones(4))
    assert unit.digest() == encoder.digest()
    new = expression(30, seed=8)
    X, Z = np.asarray(new.X), encoder.transform(new)
    assert_allclose(Z, unit.transform(new) * encoder.latent_scale, rtol=1e-6)
    assert_allclose(encoder.unit_latents(Z), unit.transform(new), atol=1e-6)
    for found, plain in zip(encoder.posterior_array(X), unit.posterior_array(X), strict=True):
        assert_allclose(found, plain * encoder.latent_scale, rtol=1e-6)
    assert_allclose(encoder.reconstruct(new), unit.reconstruct(new), atol=1e-4)
    assert_array_equal(log_likelihood(encoder, new)[0], log_likelihood(unit, new)[0])
    own = ("mu_variance", "kl_per_unit", "active_units", "depth_r", "r2", "val_loss")
    assert {k: encoder.summary[k] for k in own} == {k: unit.summary[k] for k in own}


@pytest.mark.parametrize("sampler", ["prior", "gmm", "posterior"])
@pytest.mark.parametrize("counts", [False, True], ids=["normal", "counts"])
def test_generated_samples_are_the_same(expression: Make, sampler: str, counts: bool) -> None:
    data = expression(counts=counts)
    law = {"likelihood": "negative_binomial", "input_transform": "none"} if counts else {}
    made = [
        VAE(4, hidden=(16,), epochs=4, latent_scale=scale, **law)  # type: ignore[arg-type]
        .fit(data)
        .sample(50, 0, sampler=sampler, noise=False)  # type: ignore[arg-type]
        for scale in ("decoder", "unit")
    ]
    assert made[0].std(axis=0).min() > 0
    assert_allclose(made[0], made[1], rtol=1e-3)


def test_an_estimator_gives_scaled_latents_and_takes_them_back(data: anndata.AnnData) -> None:
    vae = VAE(4, hidden=(16,), epochs=4, random_state=3).fit(data)
    Z = vae.transform(data)
    assert_allclose(Z, vae.encoder_.encode_array(np.asarray(data.X)), atol=1e-4)
    assert np.abs(Z / vae.encoder_.latent_scale - Z).max() > 1
    expected = vae.encoder_.reconstruct_array(np.asarray(data.X))
    assert_allclose(vae.inverse_transform(Z), expected, atol=1e-4)


def test_an_old_folder_opens_as_it_was(
    encoder: Encoder, data: anndata.AnnData, tmp_path: Path
) -> None:
    encoder.save(tmp_path)
    stored = json.loads((tmp_path / "model.json").read_text())
    assert_array_equal(np.float32(stored["latent_scale"]), encoder.latent_scale)
    del stored["latent_scale"], stored["config"]["model"]["latent_scale"]
    (tmp_path / "model.json").write_text(json.dumps(stored))
    old = load_encoder(tmp_path)
    assert_array_equal(old.latent_scale, np.ones(4))
    assert old.config.model.latent_scale == "unit"
    assert_array_equal(old.transform(data), _trained(data, latent_scale="unit").transform(data))
    assert_allclose(old.reconstruct(data), encoder.reconstruct(data), atol=1e-4)


def test_an_old_run_is_resumed_as_it_was(
    data: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.write_h5ad(tmp_path / "x.h5ad")
    train = ["train", str(tmp_path / "x.h5ad"), "--out", str(tmp_path / "run"), "--epochs", "2"]
    assert run([*train, "--latent-scale", "unit"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"].pop("latent_scale") == "unit"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert run([*train, "--resume"]) == 0
    assert run([*train, "--resume", "--latent-scale", "decoder"]) == 1
    assert "latent_scale: 'unit' there, 'decoder' here" in capsys.readouterr().err


def test_scales_that_do_not_fit_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    stored = json.loads((tmp_path / "model.json").read_text())
    for wrong in ([1.0, 1.0], [1.0, 1.0, 1.0, 0.0]):
        (tmp_path / "model.json").write_text(json.dumps({**stored, "latent_scale": wrong}))
        with pytest.raises(InputError, match="expected 4 positive numbers of latent_scale"):
            load_encoder(tmp_path)


def test_files_of_latents_say_their_scale_and_no_map_mixes_two(
    data: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.write_h5ad(tmp_path / "x.h5ad")
    x = str(tmp_path / "x.h5ad")
    for scale in ("decoder", "unit"):
        out = ["--out", str(tmp_path / scale), "--epochs", "2", "--latent", "3"]
        assert run(["train", x, *out, "--latent-scale", scale]) == 0
        z = str(tmp_path / f"{scale}.h5ad")
        assert run(["encode", str(tmp_path / scale), x, "--out", z]) == 0
        written = read_h5ad(z).uns["latent_scale"]
        assert_array_equal(written, load_encoder(tmp_path / scale).latent_scale)
    assert "| latent scale | the network's own |" in (tmp_path / "unit" / "model.md").read_text()
    mapped, clusters = str(tmp_path / "m.h5ad"), str(tmp_path / "c.h5ad")
    assert run(["map", str(tmp_path / "decoder.h5ad"), "--method", "pca", "--out", mapped]) == 0
    assert run(["cluster", str(tmp_path / "decoder.h5ad"), "--k", "2", "--out", clusters]) == 0
    expected = load_encoder(tmp_path / "decoder").latent_scale
    for file in (mapped, clusters):
        assert_array_equal(read_h5ad(file).uns["latent_scale"], expected)
    capsys.readouterr()
    wrong = ["map", str(tmp_path / "unit.h5ad"), "--onto", mapped, "--out", str(tmp_path / "n")]
    assert run(wrong) == 1
    assert "expected latents on the scale of those of" in capsys.readouterr().err
