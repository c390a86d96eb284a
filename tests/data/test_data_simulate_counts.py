"""Simulated single cells follow what was planted."""

from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run
from m1pipe.data.simulation.counts import (
    DEPTH,
    DISPERSION,
    CountsConfig,
    draw_counts,
    plant_counts,
    simulate_counts,
)
from m1pipe.errors import InputError

CONFIG = CountsConfig(n_training=600, n_held_out=200, n_genes=300, n_types=4, n_donors=6)


def test_files_have_whole_counts_types_and_donors_apart(tmp_path: Path) -> None:
    simulate_counts(tmp_path / "a", CONFIG)
    simulate_counts(tmp_path / "b", CONFIG)
    parts = [anndata.read_h5ad(tmp_path / f"a/{part}.h5ad") for part in ("training", "held_out")]
    again = anndata.read_h5ad(tmp_path / "b/training.h5ad")
    assert np.array_equal(parts[0].X, again.X) and parts[0].uns["units"] == "counts"
    assert [part.shape for part in parts] == [(600, 300), (200, 300)]
    for part in parts:
        assert (part.X >= 0).all() and np.array_equal(part.X, np.rint(part.X))
    donors = [set(part.obs["donor"]) for part in parts]
    assert len(donors[0]) == 4 and len(donors[1]) == 2 and not donors[0] & donors[1]


def test_types_are_as_frequent_as_planted_and_have_their_markers(tmp_path: Path) -> None:
    law = plant_counts(CONFIG)
    counts, obs = draw_counts(law, 4000, np.arange(6), np.random.default_rng(0))
    share = counts / counts.sum(axis=1, keepdims=True)
    for i, frequency in enumerate(law["frequency"]):
        mine = (obs["cell_type"] == f"type_{i + 1}").to_numpy()
        assert mine.mean() == pytest.approx(frequency, abs=0.03)
        ratio = share[mine].mean(axis=0) / share[~mine].mean(axis=0)
        others = np.setdiff1d(np.arange(300), law["markers"])
        assert np.median(ratio[law["markers"][i]]) > 5 * np.median(ratio[others])
    depth = counts.sum(axis=1)
    assert np.exp(np.log(depth).mean()) == pytest.approx(DEPTH, rel=0.05)


def test_counts_are_negative_binomial() -> None:
    nothing = {"loadings": np.zeros((6, 5000)), "donor_shift": np.zeros((1, 5000))}
    flat = {"level": np.zeros((1, 5000)), "frequency": np.ones(1), **nothing}
    counts, _ = draw_counts(flat, 200, np.zeros(1, dtype=int), np.random.default_rng(1))
    means = counts.mean(axis=1)
    excess = (counts.var(axis=1) - means) / means**2
    assert excess.mean() == pytest.approx(DISPERSION, rel=0.05)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--n-training", "30", "--n-held-out", "20", "--n-genes", "100", "--n-types", "3"]
    arguments = ["simulate", "counts", *size, "--out", str(tmp_path / "s")]
    assert run(arguments) == 0
    assert "30 training and 20 held-out cells x 100 genes, 3 types" in capsys.readouterr().out
    assert run(arguments) == 1 and run([*arguments, "--force"]) == 0
    with pytest.raises(InputError, match="n_genes: expected at least 100; found 50"):
        CountsConfig(n_genes=50)
