"""`m1pipe reconstruct`, `impute`, `score` and `interpolate` on files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.console import log
from m1pipe.encoder import Encoder, load_encoder
from m1pipe.encoder.likelihood import log_likelihood
from m1pipe.encoder.missing import impute_array

Make = Callable[..., anndata.AnnData]


@pytest.fixture(scope="module")
def folder(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.h5ad, new.h5ad, a run and one conditional by tissue."""
    path = tmp_path_factory.mktemp("apply")
    expression(200, 30).write_h5ad(path / "data.h5ad")
    expression(40, 30, seed=1).write_h5ad(path / "new.h5ad")
    quick = ["--epochs", "4", "--latent", "4", "--hidden", "none"]
    for name, more in [("run", []), ("cvae", ["--condition", "tissue"])]:
        data = str(path / "data.h5ad")
        assert run(["train", data, "--out", str(path / name), *quick, *more]) == 0
    return path


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    log.handlers.clear()


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return load_encoder(folder / "run")


@pytest.mark.parametrize("name", ["run", "cvae"])
def test_reconstruct_writes_what_the_encoder_gives(folder: Path, tmp_path: Path, name: str) -> None:
    new, out = folder / "new.h5ad", tmp_path / "r.h5ad"
    assert run(["reconstruct", str(folder / name), str(new), "--out", str(out)]) == 0
    made, encoder = anndata.read_h5ad(out), load_encoder(folder / name)
    np.testing.assert_allclose(made.X, encoder.reconstruct(new), rtol=1e-6)
    assert made.obs_names.tolist() == anndata.read_h5ad(new).obs_names.tolist()
    assert made.uns["units"] == "log2_normalized1"
    real = np.asarray(anndata.read_h5ad(new).X)
    assert ((made.X - real) ** 2).mean() < 0.5 * real.var(axis=0).mean()


def test_impute_fills_gaps_better_than_means_and_leaves_the_rest(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adata = anndata.read_h5ad(folder / "new.h5ad")
    whole = np.asarray(adata.X).copy()
    gaps = np.random.default_rng(0).random(whole.shape) < 0.2
    adata.X = np.where(gaps, np.nan, whole)
    adata = adata[:, 1:].copy()
    adata.write_h5ad(tmp_path / "gaps.h5ad")
    out = tmp_path / "filled.h5ad"
    arguments = ["impute", str(folder / "run"), str(tmp_path / "gaps.h5ad"), "--out", str(out)]
    assert run(arguments) == 0
    n_missing = gaps[:, 1:].sum() + 40
    assert f"{n_missing:,} of 1,200 levels were missing" in capsys.readouterr().out
    filled = np.asarray(anndata.read_h5ad(out).X)
    gaps[:, 0] = True
    np.testing.assert_array_equal(filled[~gaps], whole[~gaps])
    means = np.broadcast_to(load_encoder(folder / "run").recipe.gene_means, whole.shape)
    errors = [np.mean((guess - whole)[gaps] ** 2) for guess in (filled, means)]
    assert errors[0] < 0.4 * errors[1]


def test_imputed_levels_are_the_conditional_mean_of_a_linear_model(
    expression: Make, tmp_path: Path
) -> None:
    """The fixed point against the normal law's conditional mean, solved directly."""
    data = expression(300, 12)
    data.write_h5ad(tmp_path / "d.h5ad")
    still = tmp_path / "still.toml"
    still.write_text("lr = 1e-12\nepochs = 1\nn_latent = 3\n")
    arguments = ["train", str(tmp_path / "d.h5ad"), "--out", str(tmp_path / "r")]
    assert run([*arguments, "--config", str(still)]) == 0
    encoder = load_encoder(tmp_path / "r")
    module, scaler = encoder.module, encoder.scaler
    assert module.skip_decoder is not None
    W = module.skip_decoder.weight.detach().double().numpy()
    mean = module.skip_decoder.bias.detach().double().numpy()
    A = module.skip_encoder.weight.detach().double().numpy()  # type: ignore[union-attr]
    X = np.asarray(data.X)[:5].copy()
    X[:, :4] = np.nan
    z = scaler.apply(X).astype(np.float64)[:, 4:] - mean[4:]
    inner = np.eye(3) - A[:, :4] @ W[:4]
    expected = mean[:4] + np.linalg.solve(inner, A[:, 4:] @ z.T).T @ W[:4].T
    filled = scaler.apply(impute_array(encoder, X))[:, :4]
    np.testing.assert_allclose(filled, expected, atol=0.02)


def test_score_ranks_strange_samples_last(
    folder: Path, tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    adata = anndata.read_h5ad(folder / "new.h5ad")
    X = np.asarray(adata.X).copy()
    X[:5] += 2 * np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    adata.X = X
    adata.write_h5ad(tmp_path / "new.h5ad")
    out = tmp_path / "s.h5ad"
    new = str(tmp_path / "new.h5ad")
    assert run(["score", str(folder / "run"), new, "--out", str(out)]) == 0
    assert "less probable than 99 % of the training samples" in capsys.readouterr().out
    made = anndata.read_h5ad(out)
    assert made.var_names.tolist() == ["log_likelihood", "percentile"]
    scores, percentile = np.asarray(made.X).T
    np.testing.assert_allclose(scores, log_likelihood(encoder, adata)[0], rtol=1e-5)
    assert percentile[:5].max() <= 1
    assert 15 < np.median(percentile[5:]) < 85
    assert (folder / "run" / "training_scores.json").exists()


def test_interpolation_goes_from_one_to_the_other(folder: Path, tmp_path: Path) -> None:
    data, encoder = folder / "data.h5ad", load_encoder(folder / "run")
    out = tmp_path / "way.h5ad"
    ends = ["--from", "tissue=Liver", "--to", "tissue=Brain", "--steps", "5"]
    assert run(["interpolate", str(folder / "run"), str(data), *ends, "--out", str(out)]) == 0
    way = anndata.read_h5ad(out)
    assert way.obs["share"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    Z = encoder.transform(data)
    tissue = anndata.read_h5ad(data).obs["tissue"].to_numpy()
    for step, name in ((0, "Liver"), (-1, "Brain")):
        expected = encoder.decode(Z[tissue == name].mean(axis=0)[None])[0]
        np.testing.assert_allclose(np.asarray(way.X)[step], expected, rtol=1e-4, atol=1e-4)
    moved = tmp_path / "moved.h5ad"
    add = ["--add", "s0_1", "s0_2", "--out", str(moved)]
    assert run(["interpolate", str(folder / "run"), str(data), *ends, *add]) == 0
    expected = encoder.decode((Z[tissue == "Liver"].mean(axis=0) + Z[1] - Z[2])[None])[0]
    np.testing.assert_allclose(np.asarray(anndata.read_h5ad(moved).X)[0], expected, atol=1e-4)
    both = tmp_path / "c.h5ad"
    assert run(["interpolate", str(folder / "cvae"), str(data), *ends, "--out", str(both)]) == 0
    assert anndata.read_h5ad(both).obs["tissue"].tolist() == ["Liver"] * 2 + ["Brain"] * 3


def test_wrong_input_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = str(tmp_path / "o.h5ad"), str(folder / "data.h5ad")
    ends = ["--from", "nobody", "--to", "tissue=Brain"]
    assert run(["interpolate", str(folder / "run"), data, *ends, "--out", out]) == 1
    assert "found 'nobody', which none has" in capsys.readouterr().err
    gaps = anndata.read_h5ad(data)
    gaps.X = np.where(np.eye(*gaps.shape, dtype=bool), np.nan, gaps.X)
    gaps.write_h5ad(tmp_path / "gaps.h5ad")
    gaps.X[3] = np.nan
    gaps.write_h5ad(tmp_path / "gaps.h5ad")
    for command in ("reconstruct", "score", "encode", "impute"):
        assert run([command, str(folder / "run"), str(tmp_path / "gaps.h5ad"), "--out", out]) == 1
        assert f"found none in '{gaps.obs_names[3]}'" in capsys.readouterr().err


def test_a_file_with_gaps_goes_all_the_way(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on, encoded, scored, reconstructed, generated from, and compared."""
    gaps, rng = anndata.read_h5ad(folder / "data.h5ad"), np.random.default_rng(0)
    lost = rng.random(gaps.shape) < 0.05
    gaps.X = np.where(lost, np.nan, gaps.X)
    data, model, out = tmp_path / "gaps.h5ad", tmp_path / "run", tmp_path / "o.h5ad"
    gaps.write_h5ad(data)
    few = ["--epochs", "5", "--latent", "4"]
    assert run(["train", str(data), "--out", str(model), *few]) == 0
    assert f"{lost.sum():,} of {lost.size:,} levels (" in capsys.readouterr().err
    assert load_encoder(model).summary["n_missing"] == lost.sum()
    for command in ("encode", "reconstruct", "score"):
        assert run([command, str(model), str(data), "--out", str(out), "--force"]) == 0
        assert f"{lost.sum():,} levels are missing" in capsys.readouterr().err
        assert np.isfinite(anndata.read_h5ad(out).X).all()
    assert run(["generate", str(model), "-n", "20", "--out", str(out), "--force"]) == 0
    assert np.isfinite(anndata.read_h5ad(out).X).all()
    compare = ["crossval", "--x", str(data), "--label", "tissue", "--encoder", f"vae={model}"]
    few = ["--folds", "2", "--head-epochs", "2", "--models", "prior,logistic,raw,vae"]
    assert run([*compare, *few, "--out", str(tmp_path / "cv")]) == 0
    assert f"{lost.sum():,} of {lost.size:,} levels of X (" in capsys.readouterr().err
