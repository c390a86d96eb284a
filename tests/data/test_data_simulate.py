import dataclasses
import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.linear_model import RidgeCV

from m1pipe.cli.main import cli, run
from m1pipe.data.simulation.m1 import (
    M1_FILES,
    M1_TABLES,
    SIZES,
    labelled_rows,
    labelled_samples,
    simulate_m1,
    unlabelled_rows,
    unlabelled_samples,
)
from m1pipe.data.simulation.m1_truth import M1Size, plant
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "small"
    simulate_m1(out, "small", seed=3)
    return out


def per_gene(X: np.ndarray, Y: np.ndarray, gene_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TPM of genes, and the sum of their isoforms' TPM."""
    sums = np.zeros(X.shape)
    np.add.at(sums.T, gene_of, (np.exp2(Y.astype(np.float64)) - 1).T)
    return np.exp2(X.astype(np.float64)) - 1, sums


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_shares_of_zeros(size: str, seed: int) -> None:
    world = plant(SIZES[size], seed)
    unlabelled, labelled = (
        unlabelled_samples(SIZES[size], seed),
        labelled_samples(SIZES[size], seed),
    )
    _, U = unlabelled_rows(world, unlabelled, seed, 0, 300)
    _, X, Y = labelled_rows(world, labelled, seed, 0, 120)
    margin = 0.03 if size == "tiny" else 0.01  # 60 genes are few
    assert 0.09 - margin < (U == 0).mean() < 0.09 + margin
    assert 0.09 - margin < (X == 0).mean() < 0.09 + margin
    assert 0.31 < (Y == 0).mean() < 0.36


def test_isoforms_sum_to_their_gene(small: Path) -> None:
    x, y = open_matrix(small / "genes.h5ad"), open_matrix(small / "isoforms.h5ad")
    assert x.samples.tolist() == y.samples.tolist()
    gene_ids = y.var["gene_id"].astype(str)
    gene_of = np.array([x.genes.tolist().index(gene) for gene in gene_ids])
    counts = np.bincount(gene_of, minlength=x.n_genes)
    assert (counts.min(), counts.max(), counts.sum()) == (3, 8, 2750)
    genes, sums = per_gene(x.read(), y.read(), gene_of)
    np.testing.assert_allclose(sums, genes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(genes.sum(axis=1), 1e6 * 500 / 18_965, rtol=1e-4)


def test_files_are_as_described(small: Path) -> None:
    assert sorted(p.name for p in small.iterdir()) == sorted(M1_FILES)
    u = anndata.read_h5ad(small / "unlabelled.h5ad")
    x = anndata.read_h5ad(small / "genes.h5ad")
    assert (u.shape, x.shape) == ((2000, 500), (600, 500))
    assert u.var_names.tolist() == x.var_names.tolist()
    assert x.obs_names.is_unique and u.obs_names.is_unique
    assert not set(x.obs_names) & set(u.obs_names)
    assert open_matrix(small / "genes.h5ad").units == Units("log2_tpm1")
    assert x.obs["tissue"].value_counts().gt(4).sum() == 20
    assert u.obs["study"].nunique() == 20
    per_donor = x.obs.groupby("donor", observed=True)["tissue"]
    assert per_donor.nunique().equals(per_donor.size())  # a donor gives a tissue once
    assert per_donor.size().median() >= 5
    assert "seed 3" in (small / "README.txt").read_text()


def test_tables_of_text_are_counts_of_the_same_samples(tmp_path: Path) -> None:
    simulate_m1(tmp_path / "sim", size="tiny", text=True)
    assert {p.name for p in (tmp_path / "sim").iterdir()} == {*M1_FILES, *M1_TABLES}
    levels = anndata.read_h5ad(tmp_path / "sim/isoforms.h5ad")
    counts = pd.read_csv(tmp_path / "sim/isoforms.tsv.gz", sep="\t", index_col="sample")
    assert counts.index.equals(levels.obs_names) and counts.columns.equals(levels.var_names)
    tpm = np.exp2(levels.to_df()) - 1
    expected = tpm.mul(counts.sum(axis=1) / tpm.sum(axis=1), axis=0)
    excess = (counts - expected) ** 2 / expected.where(expected > 5)  # 1 in the mean if Poisson
    assert float(np.nanmean(excess)) == pytest.approx(1, abs=0.05)
    genes = pd.read_csv(tmp_path / "sim/tx2gene.tsv", sep="\t", index_col="transcript")["gene"]
    assert genes.tolist() == levels.var["gene_id"].tolist()
    with pytest.raises(InputError, match="text: expected at most 100,000,000 levels"):
        simulate_m1(tmp_path / "much", size="paper", text=True)


def test_the_truth_fits_the_data(small: Path) -> None:
    x, y = open_matrix(small / "genes.h5ad"), open_matrix(small / "isoforms.h5ad")
    with h5py.File(small / "truth.h5") as truth:
        assert truth.attrs["seed"] == 3
        assert M1Size(**json.loads(truth.attrs["size"])) == SIZES["small"]
        latents, tissue = truth["labelled/latents"][:], truth["labelled/tissue"][:]
        assert truth["unlabelled/latents"].shape == (2000, 32)
        names = truth["tissues/names"].asstr()[:]
        means, expression = truth["tissues/latents"][:], truth["tissues/expression"][:]
        usage, gene_of = truth["tissues/usage"][:], truth["world/gene_of"][:]
    assert names[tissue].tolist() == x.obs["tissue"].tolist()
    np.testing.assert_allclose(
        np.add.reduceat(usage, np.flatnonzero(np.diff(gene_of, prepend=-1)), axis=1), 1, rtol=1e-5
    )
    own = latents - means[tissue]
    assert 0.6 < own.std() < 0.75  # own and donor's: sqrt(0.6^2 + 0.3^2) = 0.67
    X = x.read()
    mean_X = np.stack([X[tissue == t].mean(axis=0) for t in range(20)])
    assert np.corrcoef(mean_X.ravel(), expression.ravel())[0, 1] > 0.97
    levels, _ = per_gene(X, y.read(), gene_of)
    shares = (np.exp2(y.read()) - 1) / np.maximum(levels[:, gene_of], 1e-6)
    high = levels.min(axis=0)[gene_of] > 5
    assert high.sum() > 100
    mean_shares = np.stack([shares[tissue == t].mean(axis=0) for t in range(20)])
    assert np.corrcoef(mean_shares[:, high].ravel(), usage[:, high].ravel())[0, 1] > 0.95


def test_there_is_something_to_learn_beyond_the_tissue(small: Path) -> None:
    X, Y = open_matrix(small / "genes.h5ad").read(), open_matrix(small / "isoforms.h5ad").read()
    obs = open_matrix(small / "genes.h5ad").obs
    tissue = obs["tissue"].to_numpy()
    train = np.random.default_rng(0).random(600) < 0.8

    def share(prediction: np.ndarray) -> float:
        baseline = ((Y[~train] - Y[train].mean(axis=0)) ** 2).mean()
        return float(((Y[~train] - prediction) ** 2).mean() / baseline)

    tissue_mean = np.stack([Y[train & (tissue == t)].mean(axis=0) for t in tissue[~train]])
    ridge = RidgeCV(np.logspace(1, 4, 7)).fit(X[train], Y[train]).predict(X[~train])
    assert share(tissue_mean) < 0.5
    assert share(ridge) < 0.25
    assert share(ridge) < 0.7 * share(tissue_mean)


def test_the_unlabelled_set_is_shifted(small: Path) -> None:
    u, x = open_matrix(small / "unlabelled.h5ad").read(), open_matrix(small / "genes.h5ad").read()
    with h5py.File(small / "truth.h5") as truth:
        tissues = {name: truth[f"{name}/tissue"][:] for name in ("unlabelled", "labelled")}
        platform = truth["world/platform"][:]
    shift = np.zeros(500)
    for t in range(20):
        shift += u[tissues["unlabelled"] == t].mean(axis=0) - x[tissues["labelled"] == t].mean(
            axis=0
        )
    well_seen = x.mean(axis=0) > 4
    assert well_seen.sum() > 50
    assert np.corrcoef(shift[well_seen], platform[well_seen])[0, 1] > 0.7
    assert 0.1 < platform.std() < 0.5


def test_rows_do_not_depend_on_the_block_size() -> None:
    size = SIZES["tiny"]
    world, labelled, unlabelled = (
        plant(size, 5),
        labelled_samples(size, 5),
        unlabelled_samples(size, 5),
    )
    whole = labelled_rows(world, labelled, 5, 0, 20)
    parts = [labelled_rows(world, labelled, 5, a, b) for a, b in ((0, 1), (1, 13), (13, 20))]
    for i in range(3):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), whole[i])
    _, U = unlabelled_rows(world, unlabelled, 5, 0, 20)
    np.testing.assert_array_equal(unlabelled_rows(world, unlabelled, 5, 7, 8)[1], U[7:8])


def test_block_size_changes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_m1(tmp_path / "a", "tiny")
    monkeypatch.setattr("m1pipe.data.simulation.m1._BLOCK_BYTES", 7_000)
    simulate_m1(tmp_path / "b", "tiny")
    for name in ("unlabelled.h5ad", "genes.h5ad", "isoforms.h5ad"):
        a, b = open_matrix(tmp_path / "a" / name), open_matrix(tmp_path / "b" / name)
        np.testing.assert_array_equal(a.read(), b.read())
        assert a.obs.equals(b.obs) and a.var.equals(b.var)


def test_seeds_differ_and_more_unlabelled_samples_leave_the_labelled_ones(tmp_path: Path) -> None:
    simulate_m1(tmp_path / "a", "tiny", n_unlabelled=50)
    simulate_m1(tmp_path / "b", "tiny", n_unlabelled=700)
    simulate_m1(tmp_path / "c", "tiny", seed=1, n_unlabelled=50)
    a, b, c = (open_matrix(tmp_path / name / "isoforms.h5ad").read() for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert a.shape != c.shape or not np.allclose(a, c)


def test_the_papers_shape() -> None:
    paper = SIZES["paper"]
    assert (paper.n_unlabelled, paper.n_genes) == (167_884, 18_965)
    assert (paper.n_labelled, paper.n_isoforms, paper.n_donors) == (17_356, 156_958, 948)
    assert (SIZES["small"].n_isoforms, SIZES["medium"].n_isoforms) == (2_750, 5_500)
    assert len(labelled_samples(paper, 0).obs) == 17_356
    assert len(unlabelled_samples(paper, 0).obs) == 167_884


@pytest.mark.slow
def test_the_papers_width_in_a_few_samples() -> None:
    paper = SIZES["paper"]
    world = plant(paper, 0)
    _, X, Y = labelled_rows(world, labelled_samples(paper, 0), 0, 0, 10)
    genes, sums = per_gene(X, Y, world.gene_of)
    np.testing.assert_allclose(genes.sum(axis=1), 1e6, rtol=1e-5)
    np.testing.assert_allclose(sums, genes, rtol=1e-4, atol=1e-4)
    assert (0.08 < (X == 0).mean() < 0.1) and (0.32 < (Y == 0).mean() < 0.35)


def test_what_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"expected one of tiny, small, .*; found 'huge'"):
        simulate_m1(tmp_path / "a", "huge")
    with pytest.raises(InputError, match="n_genes: expected at least 1; found 0"):
        simulate_m1(tmp_path / "a", "tiny", n_genes=0)
    with pytest.raises(InputError, match="seed: expected 0"):
        simulate_m1(tmp_path / "a", "tiny", seed=-1)
    with pytest.raises(InputError, match="samples_per_donor: expected 1 to 6"):
        dataclasses.replace(SIZES["tiny"], samples_per_donor=7)
    with pytest.raises(InputError, match="isoforms_per_gene: expected 3 to 8"):
        dataclasses.replace(SIZES["tiny"], isoforms_per_gene=9)
    with pytest.raises(InputError, match=r"needs .* MB; the disk has .*smaller size"):
        simulate_m1(tmp_path / "a", "tiny", n_unlabelled=10**13)
    assert not list(tmp_path.iterdir())


def test_only_a_simulation_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "sim"
    simulate_m1(out, "tiny")
    with pytest.raises(InputError, match="exists already"):
        simulate_m1(out, "tiny")
    simulate_m1(out, "tiny", n_unlabelled=10, force=True)
    assert open_matrix(out / "unlabelled.h5ad").n_samples == 10
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis\.txt, which is no part of a simulation"):
        simulate_m1(out, "tiny", force=True)
    assert (out / "thesis.txt").exists()


def test_nothing_half_made_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("m1pipe.data.simulation.m1._write_truth", interrupt)
    with pytest.raises(KeyboardInterrupt):
        simulate_m1(tmp_path / "sim", "tiny")
    assert not list(tmp_path.iterdir())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sim"
    options = ["simulate", "m1", "--out", str(out), "--size", "tiny", "--n-unlabelled", "20"]
    result = CliRunner().invoke(cli, options)
    assert result.exit_code == 0, result.output
    assert "20 unlabelled and 120 labelled samples, 60 genes, 330 isoforms" in result.output
    assert run(options) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and "exists already" in error[0]
    assert run([*options, "--force"]) == 0


def test_command_reads_a_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "sim.toml"
    config.write_text('size = "tiny"\nseed = 4\nn_unlabelled = 30\n')
    options = ["simulate", "m1", "--config", str(config), "--out", str(tmp_path / "sim")]
    assert run([*options, "--n-unlabelled", "20"]) == 0
    assert "20 unlabelled and 120 labelled" in capsys.readouterr().out
    with h5py.File(tmp_path / "sim" / "truth.h5") as truth:
        assert truth.attrs["seed"] == 4
    config.write_text("genes = 5\n")
    assert run([*options, "--force"]) == 2
    assert "sim.toml: unknown setting 'genes'" in capsys.readouterr().err
    assert run(["simulate", "m1", "--out", str(tmp_path / "b"), "--n-labelled", "0"]) == 2
    assert "n_labelled: expected at least 1; found 0" in capsys.readouterr().err
