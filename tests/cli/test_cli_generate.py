"""`m1pipe generate` from a run to an h5ad file."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.console import log
from m1pipe.encoder import load_encoder

Make = Callable[..., anndata.AnnData]


@pytest.fixture(scope="module")
def folder(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.h5ad, a plain run, one conditional by tissue, and an autoencoder."""
    path = tmp_path_factory.mktemp("generate")
    expression(160, 30).write_h5ad(path / "data.h5ad")
    quick = ["--epochs", "3", "--latent", "4", "--hidden", "8"]
    for name, more in [("run", []), ("cvae", ["--condition", "tissue"]), ("ae", ["--beta", "0"])]:
        data = str(path / "data.h5ad")
        assert run(["train", data, "--out", str(path / name), *quick, *more]) == 0
    return path


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    log.handlers.clear()


def test_samples_carry_what_made_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.h5ad"
    assert run(["generate", str(folder / "run"), "-n", "50", "--seed", "7", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: 50 synthetic samples x 30 genes, mixture of ")
    assert "totals of these samples: " in said.err and "of 10,000" in said.err
    made = anndata.read_h5ad(out)
    assert made.shape == (50, 30)
    assert made.obs["synthetic"].all()
    assert made.var["symbol"].tolist()[0] == "SYM0"
    assert (made.uns["units"], made.uns["target_sum"]) == ("log2_normalized1", 1e4)
    facts = made.uns["synthetic"]
    assert facts["model"] == load_encoder(folder / "run").digest()
    assert (facts["seed"], facts["sampler"], bool(facts["noise"])) == (7, "gmm", True)
    assert made.X.min() >= 0
    assert run(["generate", str(folder / "run"), "-n", "50", "--out", str(out)]) == 1
    assert "overwrite with --force" in capsys.readouterr().err


def test_the_seed_repeats_them_and_the_mixture_is_kept(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / "mixture.safetensors").unlink(missing_ok=True)
    made = []
    for i, seed in enumerate(["1", "1", "2"]):
        out = tmp_path / f"{i}.h5ad"
        arguments = ["generate", str(tmp_path / "run"), "-n", "20", "--seed", seed]
        assert run([*arguments, "--out", str(out)]) == 0
        assert (tmp_path / "run" / "mixture.safetensors").exists()
        made.append(anndata.read_h5ad(out).X)
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.allclose(made[0], made[2])


def test_classes_by_their_shares_or_as_wanted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cvae = str(folder / "cvae")
    assert run(["generate", cvae, "-n", "40", "--out", str(tmp_path / "a.h5ad")]) == 0
    shares = anndata.read_h5ad(folder / "data.h5ad").obs["tissue"].value_counts(normalize=True)
    counts = anndata.read_h5ad(tmp_path / "a.h5ad").obs["tissue"].value_counts()
    assert abs(counts["Liver"] - 40 * shares["Liver"]) < 3
    wanted = ["--condition", "tissue=Liver:5", "--condition", "tissue=Brain:2"]
    assert run(["generate", cvae, *wanted, "--out", str(tmp_path / "b.h5ad")]) == 0
    assert "tissue Brain 2, Liver 5" in capsys.readouterr().out
    b = anndata.read_h5ad(tmp_path / "b.h5ad")
    assert b.obs["tissue"].value_counts().to_dict() == {"Liver": 5, "Brain": 2}


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("cvae", ["--condition", "tissue=Lung:5"], 1, "trained on (Brain, Liver); found 'Lung'"),
        ("cvae", ["--condition", "donor=d1:5"], 1, "expected the column 'tissue'"),
        ("run", ["--condition", "tissue=Liver:5"], 1, "expected a conditional model"),
        ("cvae", ["--condition", "tissue=Liver"], 2, "expected COL=VALUE:N"),
        ("ae", ["-n", "5", "--sampler", "prior"], 1, "expected a model with a prior"),
        ("run", [], 2, "expected a number of samples"),
        ("none", ["-n", "5"], 1, "expected a trained model"),
    ],
)
def test_wrong_input_is_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    out = tmp_path / "s.h5ad"
    assert run(["generate", str(folder / name), *arguments, "--out", str(out)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_training_samples_own_latents_are_labelled_not_private(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.h5ad"
    arguments = ["generate", str(folder / "run"), "-n", "20", "--sampler", "posterior"]
    assert run([*arguments, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "not private" in captured.out
    assert "not private" in captured.err
    made = anndata.read_h5ad(out)
    assert made.obs["private"].astype(str).unique().tolist() == ["no"]
    assert "not private" in made.uns["synthetic"]["caution"]


def test_training_data_are_needed_once_as_they_were(
    folder: Path, tmp_path: Path, expression: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.h5ad"
    shutil.copy(folder / "data.h5ad", data)
    fresh = ["--epochs", "2", "--latent", "3", "--hidden", "8", "--out", str(tmp_path / "run")]
    assert run(["train", str(data), *fresh]) == 0
    moved = data.rename(tmp_path / "moved.h5ad")
    made = ["generate", str(tmp_path / "run"), "-n", "9", "--out", str(tmp_path / "s.h5ad")]
    assert run(made) == 1
    assert "say where it is with --data, or take --sampler prior" in capsys.readouterr().err
    expression(160, 30, seed=5).write_h5ad(data)
    assert run(made) == 1
    assert "as they were; found another file" in capsys.readouterr().err
    assert run([*made, "--sampler", "prior"]) == 0
    assert run([*made, "--force", "--data", str(moved)]) == 0
    moved.unlink()
    assert run([*made, "--force", "--mean"]) == 0
