"""Several files as one matrix: the genes in common, each file in its own units."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.encoder import load_encoder
from m1pipe.errors import InputError
from m1pipe.io.together import open_together
from m1pipe.io.writer import write_matrix
from m1pipe.workflow.training_run import run_training

TINY = EncoderConfig(
    model=ModelConfig(n_latent=2, hidden=(4,)),
    training=TrainingConfig(epochs=2, kl_warmup=0.0, validation=0.0),
)


def write(path: Path, X: np.ndarray, genes: list[str], units: str, first: str) -> None:
    obs = pd.DataFrame({"sex": "f"}, index=[f"{first}{i}" for i in range(len(X))])
    var = pd.DataFrame(index=genes)
    write_matrix(path, X.astype(np.float32), obs=obs, var=var, units=Units(units))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Logarithms of 12 samples, and counts of 9 with the genes in another order and one more."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(50, size=(21, 6))
    levels = np.log2(1 + 1e6 * counts / counts.sum(axis=1, keepdims=True))
    genes = [f"g{j}" for j in range(6)]
    write(tmp_path / "u1.h5ad", levels[:12, :5], genes[:5], "log2_tpm1", "a")
    turned = levels[12:, ::-1]
    write(tmp_path / "u2.h5ad", np.exp2(turned) - 1, genes[::-1], "tpm", "b")
    np.save(tmp_path / "levels.npy", levels)
    return [tmp_path / "u1.h5ad", tmp_path / "u2.h5ad"]


def test_rows_are_those_of_the_files_in_common_genes_and_units(files: list[Path]) -> None:
    levels = np.load(files[0].with_name("levels.npy"))
    with ExitStack() as opened:
        matrix = open_together(files, opened)
        assert matrix.genes.tolist() == [f"g{j}" for j in range(5)]
        assert matrix.obs["file"].tolist() == ["u1"] * 12 + ["u2"] * 9
        np.testing.assert_allclose(matrix.read(), levels[:, :5], rtol=1e-5)
        rows = np.array([20, 3, 11, 12])
        np.testing.assert_allclose(matrix.take(rows), levels[rows, :5], rtol=1e-5)
        np.testing.assert_allclose(matrix.rows(10, 14), levels[10:14, :5], rtol=1e-5)


@pytest.mark.parametrize(("batch", "classes"), [(None, ("u1", "u2")), ((), None)])
def test_each_file_is_a_batch_unless_said_otherwise(
    batch: tuple[str, ...] | None, classes: tuple[str, ...] | None, files: list[Path]
) -> None:
    config = replace(TINY, model=replace(TINY.model, batch=batch))
    out = files[0].with_name("run")
    run_training(files, out, config)
    encoder = load_encoder(out)
    assert (None if encoder.condition is None else encoder.condition.classes) == classes
    assert len(encoder.samples) == 21
    again = run_training(files, out, config)
    np.testing.assert_array_equal(again.latent_scale, encoder.latent_scale)


def test_streamed_and_held_in_memory_are_the_same(files: list[Path]) -> None:
    found = []
    for memory in ("1G", "1K"):
        config = replace(TINY, training=replace(TINY.training, memory=memory))
        out = files[0].with_name(memory)
        found.append(run_training(files, out, config).transform(files[0]))
    assert found[0].shape == found[1].shape == (12, 2)


def test_what_cannot_be_put_together_is_refused(files: list[Path], tmp_path: Path) -> None:
    X = np.ones((4, 2))
    write(tmp_path / "other.h5ad", X, ["h1", "h2"], "log2_tpm1", "c")
    write(tmp_path / "again.h5ad", X, ["g1", "g2"], "log2_tpm1", "a")
    with ExitStack() as opened:
        with pytest.raises(InputError, match="expected genes in common; found none"):
            open_together([files[0], tmp_path / "other.h5ad"], opened)
        with pytest.raises(InputError, match="found 4 in two files, 'a0' first"):
            open_together([files[0], tmp_path / "again.h5ad"], opened)
        with pytest.raises(InputError, match="expected files of different names; found u1, u1"):
            open_together([files[0], files[0]], opened)
