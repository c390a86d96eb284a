"""Training on counts: thinned, normalised, stored with the run, and found again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from m1pipe.cli.main import run
from m1pipe.console import log
from m1pipe.encoder import Encoder, load_encoder
from m1pipe.io.reader import open_matrix
from m1pipe.synthesis.latents import aggregated_posterior

pytestmark = pytest.mark.usefixtures("figures_undrawn")

Make = Callable[..., anndata.AnnData]
QUICK = ["--latent", "3", "--hidden", "8", "--epochs", "2"]


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


@pytest.fixture
def files(expression: Make, tmp_path: Path) -> Path:
    """u.h5ad and x.h5ad, counts, u ten times as deep; xl.h5ad, x as convert normalises it."""
    u, x = expression(120, seed=1, counts=True), expression(60, seed=2, counts=True)
    x.X = np.random.default_rng(0).binomial(x.X.astype(int), 0.1).astype(np.float32)
    x.obs["factor"] = np.arange(60.0)
    u.write_h5ad(tmp_path / "u.h5ad")
    x.write_h5ad(tmp_path / "x.h5ad")
    steps = ["--normalize", "total", "--target-sum", "1e4", "--log2p1"]
    assert run(["convert", str(tmp_path / "x.h5ad"), str(tmp_path / "xl.h5ad"), *steps]) == 0
    return tmp_path


def _train(files: Path, name: str, *options: str) -> Encoder:
    assert run(["train", str(files / "u.h5ad"), "--out", str(files / name), *QUICK, *options]) == 0
    return load_encoder(files / name)


def _normalized(counts: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.log2(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))
    return found


def test_rows_are_thinned_then_normalised_as_the_other_file_is(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = _train(files, "run", "--thin-to", str(files / "xl.h5ad"))
    said = capsys.readouterr().err
    assert "counts are brought to log2_normalized1 (target sum 10000)" in said
    assert "samples thinned to the depths of xl.h5ad" in said
    assert encoder.units.name == "log2_normalized1"
    assert encoder.units.target_sum == 1e4
    depth = np.median(anndata.read_h5ad(files / "x.h5ad").X.sum(axis=1))
    assert encoder.thinning is not None
    assert encoder.thinning["depth_before"][2] > 5 * depth
    assert encoder.thinning["depth_after"][2] == pytest.approx(depth, rel=0.1)
    assert encoder.summary["depth_quantiles"][2] == pytest.approx(depth, rel=0.1)
    assert encoder.summary["depth"] == "log total_counts"
    with open_matrix(files / "u.h5ad") as matrix:
        place = {name: i for i, name in enumerate(matrix.samples)}
        rows = np.array([place[name] for name in encoder.samples])
        seen = encoder.as_trained(matrix).take(rows)
        counts = matrix.take(rows)
    assert_allclose(seen.mean(axis=0), encoder.scaler.location, rtol=1e-5)
    scaled = encoder.scaler.apply(seen)
    assert_allclose(encoder.pca.mean, scaled.mean(axis=0), atol=1e-4)
    assert_allclose(encoder.pca.variances, encoder.pca.scores(scaled).var(axis=0), rtol=1e-3)
    assert np.abs(seen - _normalized(counts)).max() > 0.3
    card = (files / "run" / "model.md").read_text()
    assert "thinned to depths of `xl.h5ad`" in card


def test_counts_of_the_other_file_serve_too(files: Path) -> None:
    first = _train(files, "a", "--thin-to", str(files / "xl.h5ad"))
    steps = ["--normalize", "total", "--target-sum", "1e4", "--log2p1"]
    second = _train(files, "b", "--thin-to", str(files / "x.h5ad"), *steps)
    assert second.digest() == first.digest()
    again = _train(files, "c", "--config", str(files / "a" / "config.json"))
    assert again.digest() == first.digest()
    whole = _train(files, "d", *steps)
    assert whole.thinning is None
    assert whole.digest() != first.digest()
    other = _train(files, "e", "--thin-to", str(files / "xl.h5ad"), "--seed", "1")
    assert other.thinning is not None
    assert other.thinning["depth_after"] != first.thinning["depth_after"]


def test_normalising_in_training_is_converting_before(files: Path) -> None:
    steps = ["--normalize", "total", "--target-sum", "1e4", "--log2p1"]
    within = _train(files, "a", *steps)
    assert run(["convert", str(files / "u.h5ad"), str(files / "ul.h5ad"), *steps]) == 0
    train = ["train", str(files / "ul.h5ad"), "--out", str(files / "b"), *QUICK]
    assert run(train) == 0
    before = load_encoder(files / "b")
    assert within.digest() == before.digest()
    assert within.summary["depth_quantiles"] == before.summary["depth_quantiles"]
    assert within.summary["depth_r"] == pytest.approx(before.summary["depth_r"])


def test_counts_stay_counts_for_their_own_likelihood(files: Path) -> None:
    law = ["--likelihood", "negative_binomial", "--transform", "none"]
    encoder = _train(files, "run", "--thin-to", str(files / "xl.h5ad"), *law)
    assert encoder.units.is_counts
    mean = float(encoder.recipe.gene_means.sum())
    assert mean == pytest.approx(anndata.read_h5ad(files / "x.h5ad").X.sum(axis=1).mean(), rel=0.1)


def test_the_training_rows_are_found_again_as_they_were_seen(files: Path) -> None:
    encoder = _train(files, "run", "--thin-to", str(files / "xl.h5ad"))
    table = pd.read_csv(files / "run" / "samples.csv", dtype=str, keep_default_na=False)
    kept = table.loc[table["role"] == "train", "kept"].astype(float)
    assert_array_equal(kept, encoder.kept)
    assert (kept < 0.6).mean() > 0.9
    with open_matrix(files / "u.h5ad") as matrix:
        posterior = aggregated_posterior(encoder, matrix)
        plain = encoder.transform(matrix)
    assert posterior.mu.var(axis=0) == pytest.approx(
        np.array(encoder.summary["mu_variance"]) * encoder.latent_scale**2, rel=0.6
    )
    place = {name: i for i, name in enumerate(open_matrix(files / "u.h5ad").samples)}
    rows = np.array([place[name] for name in encoder.samples])
    assert np.abs(posterior.mu - plain[rows]).max() > 0.1
    for command in (
        ["encode", str(files / "run"), str(files / "x.h5ad"), "--out", str(files / "z.h5ad")],
        ["encode", str(files / "run"), str(files / "xl.h5ad"), "--out", str(files / "zl.h5ad")],
        ["generate", str(files / "run"), "-n", "5", "--out", str(files / "s.h5ad")],
        ["score", str(files / "run"), str(files / "xl.h5ad"), "--out", str(files / "p.h5ad")],
    ):
        assert run(command) == 0
    z, zl = (anndata.read_h5ad(files / name).X for name in ("z.h5ad", "zl.h5ad"))
    assert_allclose(z, zl, atol=1e-4)


def test_rows_without_a_count_left_are_kept_out(files: Path) -> None:
    poor = anndata.read_h5ad(files / "x.h5ad")
    poor.X[:] = 0
    poor.X[:, 0] = 1
    poor.write_h5ad(files / "poor.h5ad")
    law = ["--likelihood", "negative_binomial", "--transform", "none"]
    encoder = _train(files, "run", "--thin-to", str(files / "poor.h5ad"), *law)
    assert encoder.thinning is not None
    n_used = len(encoder.samples) + len(encoder.validation_samples)
    assert n_used == 120 - encoder.thinning["n_empty"] < 120


def test_a_run_is_resumed_with_the_file_that_it_was_thinned_to(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thin = ["--thin-to", str(files / "xl.h5ad")]
    _train(files, "run", *thin)
    _train(files, "run", *thin, "--resume")
    known = json.loads((files / "run" / "provenance.json").read_text())["inputs"]
    assert Path(known["thinned to"]["path"]).name == "xl.h5ad"
    capsys.readouterr()
    other = ["train", str(files / "u.h5ad"), "--out", str(files / "run"), *QUICK, "--resume"]
    assert run([*other, "--thin-to", str(files / "x.h5ad")]) == 1
    assert "thin_to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--log2p1"], 2, "--log2p1, --target-sum: expected with --normalize total"),
        (["--thin-to", "x.h5ad"], 1, "expected logarithms for a Gaussian; found counts"),
    ],
)
def test_what_is_left_open_is_asked_for(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(files)
    assert run(["train", "u.h5ad", "--out", "run", *QUICK, *options]) == code
    assert message in capsys.readouterr().err


def test_logarithms_are_not_normalised_again(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", str(files / "xl.h5ad"), "--out", str(files / "run"), *QUICK]
    assert run([*train, "--normalize", "total", "--log2p1"]) == 1
    assert "normalize: expected counts; found log2_normalized1" in capsys.readouterr().err


def test_inspect_and_crossval_say_that_depths_differ(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["inspect", str(files / "u.h5ad"), "--against", str(files / "xl.h5ad")]) == 0
    said = capsys.readouterr().out
    assert "DIFFERENT: median" in said
    assert "--thin-to" in said
    steps = ["--normalize", "total", "--target-sum", "1e4", "--log2p1"]
    _train(files, "deep", *steps)
    _train(files, "thin", "--thin-to", str(files / "xl.h5ad"))
    for name, wanted in (("deep", 1), ("thin", 0)):
        out = files / f"cv_{name}"
        crossval = ["crossval", "--x", str(files / "xl.h5ad"), "--label", "tissue", "--folds", "3"]
        encoder = ["--encoder", f"vae={files / name}", "--models", "prior", "--out", str(out)]
        assert run([*crossval, *encoder]) == 0
        alarms = json.loads((out / "summary.json").read_text())["warnings"]
        found = [alarm for alarm in alarms if alarm["name"] == "depth_differs"]
        assert len(found) == wanted
        if wanted:
            assert "thinned to the depth of this file (m1pipe train --thin-to)" in found[0]["text"]
