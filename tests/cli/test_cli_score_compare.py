"""`m1pipe score --compare` on files."""

import re
from collections.abc import Callable
from pathlib import Path

import anndata
import pytest

from m1pipe.cli.main import run
from m1pipe.encoder import load_encoder
from m1pipe.synthesis.likelihood import compare_likelihoods

Make = Callable[..., anndata.AnnData]


@pytest.fixture(scope="module")
def folder(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.h5ad, new.h5ad, and runs of two transforms."""
    path = tmp_path_factory.mktemp("compare")
    expression(120, 12).write_h5ad(path / "data.h5ad")
    expression(40, 12, seed=1).write_h5ad(path / "new.h5ad")
    quick = ["--epochs", "3", "--latent", "3", "--hidden", "none"]
    for transform in ("standardize", "normal_score"):
        command = ["train", str(path / "data.h5ad"), "--out", str(path / transform), *quick]
        assert run([*command, "--transform", transform]) == 0
    return path


def test_models_are_compared_on_one_scale(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["standardize", "normal_score"]
    command = ["score", str(folder / names[0]), str(folder / "new.h5ad")]
    command += ["--out", str(tmp_path / "s.h5ad")]
    assert run([*command, "--compare", str(folder / names[1])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "nats a gene, 40 samples" in lines[1]
    encoders = {name: load_encoder(folder / name) for name in names}
    nats = compare_likelihoods(encoders, folder / "new.h5ad") / 12
    for name, line in zip(names, lines[2:], strict=True):
        assert re.findall(r"\S+", line)[:2] == [name, f"{nats[name].mean():.4f}"]
    gap = nats[names[1]] - nats[names[0]]
    assert f"difference from standardize {gap.mean():+.4f} ({gap.sem():.4f})" in lines[3]


@pytest.mark.filterwarnings("always:.*not held out")
def test_samples_of_training_are_not_held_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = str(folder / "standardize"), str(folder / "normal_score")
    data, out = str(folder / "data.h5ad"), str(tmp_path / "s.h5ad")
    assert run(["score", one, data, "--out", out, "--compare", two]) == 0
    n = len(load_encoder(folder / "standardize").samples)
    assert f"trained on {n} of the 120 samples" in capsys.readouterr().err
    assert run(["score", one, data, "--out", str(tmp_path / "t.h5ad"), "--compare", one]) == 1
    assert "expected runs of different names" in capsys.readouterr().err
    assert not (tmp_path / "t.h5ad").exists()
