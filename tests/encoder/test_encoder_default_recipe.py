"""What the default settings promise: no worse than PCA on rows that nothing was fitted to."""

from pathlib import Path

import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.config import EncoderConfig
from m1pipe.data.matrix import Matrix
from m1pipe.data.simulation.m1 import simulate_m1
from m1pipe.encoder import Encoder, summary, train_encoder
from m1pipe.io.reader import open_matrix
from m1pipe.settings import build

MARGIN = 0.05


def _held_out(matrix: Matrix, settings: dict[str, object]) -> tuple[Encoder, dict[str, float]]:
    """The encoder, and R2 of it and of its PCA on a fifth of the rows that neither has seen."""
    order = np.random.default_rng(0).permutation(matrix.n_samples)
    test, train = np.split(order, [matrix.n_samples // 5])
    encoder = train_encoder(matrix, build(EncoderConfig, settings), rows=np.sort(train))
    rows = encoder.scaler.apply(matrix.take(np.sort(test)))
    scale = summary.gene_scale(encoder.scaler, encoder.pca)
    found = summary.measure(encoder.module, encoder.pca, [rows], scale).r2()
    assert found["pca_r2"] is not None and found["pca_r2"] > 0.3  # there is something to explain
    return encoder, {name: float(value or 0.0) for name, value in found.items()}


def _no_worse_than_pca(matrix: Matrix, settings: dict[str, object]) -> Encoder:
    encoder, found = _held_out(matrix, settings)
    assert found["r2"] > found["pca_r2"] - MARGIN
    assert found["r2_median"] > found["pca_r2_median"] - MARGIN
    assert encoder.summary["val_loss"] <= encoder.summary["start_val_loss"]
    return encoder


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m1") / "small"
    simulate_m1(folder, "small", 0)
    return folder / "unlabelled.h5ad"


@pytest.mark.slow
@pytest.mark.parametrize("beta", [1.0, 0.0])
def test_simulated_m1(simulated: Path, beta: float) -> None:
    with open_matrix(simulated) as matrix:
        encoder = _no_worse_than_pca(matrix, {"beta": beta})
    assert encoder.summary["active_units"] == 32
    assert encoder.summary["r2"] > encoder.summary["pca_r2"] + 0.01  # it is not linear


@pytest.mark.slow
def test_scmixology(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "paired_scmixology" / "genes_unlabeled.tsv.gz"
    counts = ["--units", "counts", "--normalize", "total", "--target-sum", "1e4", "--log2p1"]
    assert run(["convert", str(source), str(tmp_path / "u.h5ad"), *counts]) == 0
    with open_matrix(tmp_path / "u.h5ad") as matrix:
        assert matrix.n_samples == 867
        _no_worse_than_pca(matrix, {})


@pytest.mark.slow
def test_the_start_is_kept_where_training_does_not_help(simulated: Path) -> None:
    """A rate that wrecks every epoch leaves the linear model, which is as good as PCA."""
    rough = {"lr": 3.0, "weight_decay": 0.0, "epochs": 5, "ema": 0.0}
    with open_matrix(simulated) as matrix:
        encoder, found = _held_out(matrix, rough)
    assert encoder.summary["best_epoch"] == 0
    assert encoder.summary["val_loss"] == encoder.summary["start_val_loss"]
    assert min(row["val_loss"] for row in encoder.history) > encoder.summary["val_loss"]
    assert not encoder.module.mu_head.weight.any() and not encoder.module.output.weight.any()
    assert found["r2"] > found["pca_r2"] - 0.01
