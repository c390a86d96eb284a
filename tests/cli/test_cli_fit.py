"""`m1pipe fit` and `m1pipe predict`, one after the other."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import train_encoder
from m1pipe.predictor import load_predictor
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]
QUICK = ["--head-epochs", "5", "--head-hidden", "8"]


@pytest.fixture(scope="module")
def files(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x.h5ad, y.h5ad, counts.h5ad and the encoder in vae/."""
    folder = tmp_path_factory.mktemp("files")
    config = build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 2})
    train_encoder(expression(100, 20), config).save(folder / "vae")
    x = expression(90, 20, seed=1)
    x.write_h5ad(folder / "x.h5ad")
    x[:70, :6].copy().write_h5ad(folder / "y.h5ad")
    expression(15, 20, seed=2, counts=True).write_h5ad(folder / "counts.h5ad")
    return folder


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def _fit(files: Path, out: Path, *arguments: str) -> int:
    encoder = ["--encoder", str(files / "vae")]
    return run(["fit", "--x", str(files / "x.h5ad"), *encoder, "--out", str(out), *arguments])


def test_levels_from_fit_to_predictions(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, y = tmp_path / "head", str(files / "y.h5ad")
    assert _fit(files, out, "--y", y, *QUICK, "--seed", "4") == 0
    captured = capsys.readouterr()
    made, held_out = captured.out.splitlines()
    assert made.startswith(f"{out}: 6 targets from 3 latents, ")
    assert re.fullmatch(r"  error \d\.\d{3} of the variance on held-out samples; ridge.*", held_out)
    assert "20 samples of X without Y" in captured.err
    assert {path.name for path in out.iterdir()} == {
        "config.json", "provenance.json", "model.json", "model.md", "head.safetensors", "encoder",
        "missing_genes.csv", "rivals.json", "rivals.safetensors", "samples.csv",
    }  # fmt: skip
    stored = json.loads((out / "config.json").read_text())
    assert (stored["seed"], stored["head"]["hidden"], stored["head"]["epochs"]) == (4, [8], 5)
    provenance = json.loads((out / "provenance.json").read_text())
    assert set(provenance["inputs"]) == {"x", "y", "encoder"}

    predicted = tmp_path / "p.h5ad"
    arguments = ["predict", str(out), str(files / "counts.h5ad"), "--out", str(predicted)]
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"{predicted}: 15 samples x 6 targets\n"
    written = anndata.read_h5ad(predicted)
    expected = load_predictor(out).predict(files / "counts.h5ad")
    np.testing.assert_array_equal(written.X, expected.X)
    assert written.uns["units"] == "log2_normalized1"
    assert run([*arguments, "--linear"]) == 1
    assert run([*arguments, "--linear", "--force"]) == 0
    assert anndata.read_h5ad(predicted).uns["units"] == "normalized"


def test_the_stored_config_repeats_the_fit(files: Path, tmp_path: Path) -> None:
    y = ["--y", str(files / "y.h5ad")]
    chosen = ["--targets", f"{_gene(2)},{_gene(1)}", "--group", "none", "--head-lr", "0.01"]
    assert _fit(files, tmp_path / "a", *y, *QUICK, *chosen) == 0
    again = ["--config", str(tmp_path / "a" / "config.json")]
    assert _fit(files, tmp_path / "b", *y, *again) == 0
    a, b = (tmp_path / name / "head.safetensors" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def _gene(number: int) -> str:
    return f"ENSG{number:011d}"


def test_classes_from_fit_to_predictions(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tissue"
    assert _fit(files, out, "--label", "tissue", "--class-weight", "balanced", *QUICK) == 0
    said = capsys.readouterr().out
    assert "2 classes from 3 latents, " in said
    assert re.search(r"\n  log loss \d\.\d{3} on held-out samples and half a missed one; ", said)
    predicted = tmp_path / "p.h5ad"
    assert run(["predict", str(out), str(files / "x.h5ad"), "--out", str(predicted)]) == 0
    assert capsys.readouterr().out == f"{predicted}: 90 samples x 2 class probabilities\n"
    obs = anndata.read_h5ad(predicted).obs
    assert set(obs["predicted_tissue"]) <= {"Brain", "Liver"}
    at = ["predict", str(out), str(files / "x.h5ad"), "--interval", "0.9"]
    assert run([*at, "--out", str(tmp_path / "i.h5ad")]) == 1
    assert "expected a model of levels; found binary" in capsys.readouterr().err


def test_without_an_encoder_the_genes_are_used(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--x", str(files / "x.h5ad"), "--y", str(files / "y.h5ad"), *QUICK]
    assert run(["fit", *arguments, "--out", str(tmp_path / "m")]) == 0
    assert "6 targets from the genes" in capsys.readouterr().out
    assert not (tmp_path / "m" / "encoder").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "exactly one of|expected one of --y, --label"),
        (["--label", "disease"], 1, "tissue, donor, factor"),
        (["--y", "none.h5ad"], 1, "none.h5ad"),
        (["--label", "tissue", "--stratify", "site"], 1, "stratify: expected a column"),
        (["--label", "tissue", "--model", "vae_ensemble"], 1, "fit vae to each run"),
        (["--label", "tissue", "--head-lr", "-1"], 2, "head-lr: expected a number"),
        (
            ["--label", "tissue", "--model", "logistic"],
            2,
            "logistic, which takes no encoder: leave",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    files: Path, tmp_path: Path, arguments: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert _fit(files, tmp_path / "m", *arguments, *QUICK) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("m1pipe: error: ")
    assert any(part in error for part in message.split("|"))
    assert list(tmp_path.iterdir()) == []


def test_models_on_latents_ask_for_their_encoder(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--x", str(files / "x.h5ad"), "--label", "tissue", "--model", "vae_linear"]
    assert run(["fit", *arguments, "--out", str(tmp_path / "m")]) == 1
    assert "models on latents need their encoder (--encoder NAME=RUN)" in capsys.readouterr().err


def test_models_are_kept_and_other_folders_left_alone(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = ["--label", "tissue", *QUICK]
    assert _fit(files, tmp_path / "m", *label) == 0
    before = (tmp_path / "m" / "head.safetensors").read_bytes()
    assert _fit(files, tmp_path / "m", *label, "--seed", "2") == 1
    assert "overwrite with --force" in capsys.readouterr().err
    assert (tmp_path / "m" / "head.safetensors").read_bytes() == before
    assert _fit(files, tmp_path / "m", *label, "--seed", "2", "--force") == 0
    assert (tmp_path / "m" / "head.safetensors").read_bytes() != before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("text")
    assert _fit(files, tmp_path / "thesis", *label, "--force") == 1
    assert "holds chapter.tex, which is no part of a model" in capsys.readouterr().err
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    (tmp_path / "m" / "encoder" / "notes.txt").write_text("mine")
    assert _fit(files, tmp_path / "m", *label, "--force") == 1
    assert "holds encoder/notes.txt, which is no part of a model" in capsys.readouterr().err
    assert (tmp_path / "m" / "encoder" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("ridge", "6 targets from the genes, "),
        ("mean", "6 targets from nothing"),
        ("pca_linear", "6 targets from 3 PCA scores"),
        ("net_ridge", "6 targets from the genes and 3 latents"),
    ],
)
def test_a_model_of_the_comparison_is_fitted_described_and_evaluated(
    model: str, said: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, x, y = tmp_path / "m", str(files / "x.h5ad"), str(files / "y.h5ad")
    encoder = ["--encoder", f"net={files / 'vae'}"] if model[:3] in ("net", "pca") else []
    command = ["fit", "--x", x, "--y", y, "--model", model, *encoder, "--conformal", "0.3"]
    assert run([*command, "--out", str(out)]) == 0
    assert said in capsys.readouterr().out
    assert (out / "encoder").exists() == bool(encoder)
    card = (out / "model.md").read_text()
    assert f"| model | `{model}`: " in card and "prediction intervals" in card
    assert run(["evaluate", str(out), "--x", x, "--y", y, "--out", str(tmp_path / "e")]) == 0
    found = json.loads((tmp_path / "e" / "summary.json").read_text())["models"]
    assert found["model"]["mse"] <= found["mean"]["mse"] * (1 if model != "mean" else 1.1)
    counts = str(files / "counts.h5ad")
    assert run(["predict", str(out), counts, "--out", str(tmp_path / "p.h5ad")]) == 0
    assert np.isfinite(anndata.read_h5ad(tmp_path / "p.h5ad").X).all()
