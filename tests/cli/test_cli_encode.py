"""`m1pipe encode` writes what the library returns, and says how far the file lies."""

from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import load_encoder, train_encoder
from m1pipe.io.reader import open_matrix
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]


@pytest.fixture(scope="module")
def model(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> str:
    config = build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 2})
    folder = tmp_path_factory.mktemp("runs") / "vae"
    train_encoder(expression(100, 20), config).save(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def test_the_file_holds_the_latents_and_obs(
    model: str, expression: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "x.h5ad", tmp_path / "z.h5ad"
    expression(30, 20, seed=2).write_h5ad(data)
    assert run(["encode", model, str(data), "--out", str(out)]) == 0
    written = anndata.read_h5ad(out)
    np.testing.assert_array_equal(written.X, load_encoder(model).transform(data))
    assert list(written.var_names) == ["z1", "z2", "z3"]
    assert written.uns["units"] == "latent"
    original = anndata.read_h5ad(data)
    assert list(written.obs_names) == list(original.obs_names)
    assert (written.obs["tissue"] == original.obs["tissue"]).all()
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{out}: 30 samples x 3 latents; ")
    assert "20 of 20 genes found" in captured.err
    assert "training sd off" in captured.err
    assert "worse than 99 % of the training samples (of held-out" in captured.err


def test_raw_counts_are_brought_to_the_units_of_training(
    model: str, expression: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = expression(20, 20, seed=3, counts=True)
    counts.write_h5ad(tmp_path / "c.h5ad")
    out = tmp_path / "z.h5ad"
    assert run(["encode", model, str(tmp_path / "c.h5ad"), "--out", str(out)]) == 0
    X = np.asarray(counts.X, dtype=np.float64)
    by_hand = np.log2(1 + 1e4 * X / X.sum(1, keepdims=True)).astype(np.float32)
    expected = load_encoder(model).encode_array(by_hand)
    with open_matrix(out) as written:
        np.testing.assert_allclose(written.read(), expected, atol=1e-4)
    assert "units: counts brought to log2_normalized1" in capsys.readouterr().err


def test_missing_genes_are_listed_or_refused(
    model: str, expression: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = expression(20, 20, seed=3)
    whole[:, 2:].copy().write_h5ad(tmp_path / "few.h5ad")
    whole[:, 10:].copy().write_h5ad(tmp_path / "half.h5ad")
    out = tmp_path / "z.h5ad"
    assert run(["encode", model, str(tmp_path / "few.h5ad"), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "2 genes missing" in captured.out
    assert (
        f"2 missing genes are imputed by their training means ({whole.var_names[0]}" in captured.err
    )
    assert "moves the latents by" in captured.err
    half = ["encode", model, str(tmp_path / "half.h5ad"), "--out", str(tmp_path / "h.h5ad")]
    assert run(half) == 1
    assert "80% of the encoder's 20 genes; found 10 (50.0%)" in capsys.readouterr().err
    assert not (tmp_path / "h.h5ad").exists()
    assert run([*half, "--min-coverage", "0.5"]) == 0


def test_existing_output_and_bad_input_are_refused(
    model: str, expression: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "x.h5ad", tmp_path / "z.h5ad"
    expression(5, 20).write_h5ad(data)
    out.write_text("precious")
    assert run(["encode", model, str(data), "--out", str(out)]) == 1
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert run(["encode", model, str(data), "--out", str(out), "--force"]) == 0
    for arguments, message in (
        ([str(tmp_path / "none"), str(data)], "expected a trained model"),
        ([model, str(tmp_path / "none.h5ad")], "none.h5ad"),
    ):
        assert run(["encode", *arguments, "--out", str(tmp_path / "n.h5ad")]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("m1pipe: error: ")
        assert message in error
        assert not (tmp_path / "n.h5ad").exists()
