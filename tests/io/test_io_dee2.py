"""DEE2 in bulk, by study and as a long table; runs are chosen by quality and summed."""

import bz2
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from m1pipe import open_matrix
from m1pipe.data.units import Units
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert

RNG = np.random.default_rng(8)
RUNS = [f"SRR{2500 + i}" for i in range(14)]
GENES = [f"ENSG{i:011d}" for i in range(17)]
COUNTS = pd.DataFrame(RNG.poisson(RNG.gamma(2, 60, 17), (14, 17)), index=RUNS, columns=GENES)
# Runs of an experiment mostly lie together; the first and the last share one.
EXPERIMENTS = [f"SRX{i}" for i in (0, 1, 1, 2, 3, 3, 3, 4, 5, 5, 6, 7, 7, 0)]
QUALITY = ["PASS", "WARN(3,4)", "PASS", "FAIL(7)", *["PASS"] * 8, "WARN(1)", "PASS"]
TABLE = pd.DataFrame(
    {"QC_summary": QUALITY, "SRX_accession": EXPERIMENTS, "SRP_accession": "SRP1"},
    index=pd.Index(RUNS, name="SRR_accession"),
)


def _bulk(path: Path, values: np.ndarray | None = None) -> Path:
    """As rhdf5 writes runs x genes: the file holds genes x runs, chunks of all genes."""
    values = COUNTS.to_numpy().T if values is None else values
    with h5py.File(path, "w") as file:
        file.create_dataset("bigmatrix", data=values, chunks=(17, 10), compression="gzip")
        file["rownames"], file["colnames"] = RUNS, GENES
    return path


def _long(path: Path, *, header: str = "", shuffle: bool = False) -> Path:
    lines = []
    for run, row in COUNTS.iterrows():
        pairs = list(row.items())
        if shuffle and run != RUNS[0]:
            RNG.shuffle(pairs)
        lines += [f"{run}\t{gene}\t{count}\n" for gene, count in pairs]
    path.write_bytes(bz2.compress((header + "".join(lines)).encode()))
    return path


def _table(tmp_path: Path, table: pd.DataFrame = TABLE) -> str:
    table.to_csv(tmp_path / "metadata.tsv", sep="\t")
    return str(tmp_path / "metadata.tsv")


def _convert(source: Path, **settings: Any) -> anndata.AnnData:
    dest = source.with_name("out.h5ad")
    convert(source, dest, ConvertConfig(**settings), force=True)
    return anndata.read_h5ad(dest)


@pytest.mark.parametrize("transposed", [True, False])
def test_bulk_files_are_read_in_place(tmp_path: Path, transposed: bool) -> None:
    values = COUNTS.to_numpy().T if transposed else COUNTS.to_numpy()
    with h5py.File(tmp_path / "se.h5", "w") as file:
        file["bigmatrix"], file["rownames"], file["colnames"] = values, RUNS, GENES
    with open_matrix(tmp_path / "se.h5") as matrix:
        assert matrix.layout == "dee2" and matrix.units == Units("counts")
        assert matrix.samples.tolist() == RUNS and matrix.genes.tolist() == GENES
        assert np.array_equal(matrix.read(), COUNTS)


def test_estimated_counts_may_have_fractions(tmp_path: Path) -> None:
    path = _bulk(tmp_path / "ke.h5", COUNTS.to_numpy().T + 0.25)
    with pytest.warns(M1Warning, match="not all values are whole"):
        adata = _convert(path, normalize="total", log2p1=True)
    values = COUNTS.to_numpy() + 0.25
    expected = np.log2(1 + values / values.sum(axis=1, keepdims=True) * 1e6)
    np.testing.assert_allclose(adata.X, expected, rtol=1e-6)


@pytest.mark.parametrize("header", ["", "dataset\tgene\tcount\n"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("read_bytes", [64, 2**20])
def test_long_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, shuffle: bool, read_bytes: int
) -> None:
    monkeypatch.setattr("m1pipe.io.text.lines._READ_BYTES", read_bytes)
    adata = _convert(_long(tmp_path / "ecoli_se.tsv.bz2", header=header, shuffle=shuffle))
    assert np.array_equal(adata.X, COUNTS) and adata.uns["units"] == "counts"
    assert adata.obs_names.tolist() == RUNS and adata.var_names.tolist() == GENES


@pytest.mark.parametrize("first_cell", ["gene\t", ""])
def test_matrices_of_a_study(tmp_path: Path, first_cell: str) -> None:
    path = tmp_path / "GeneCountMatrix.tsv"
    rows = COUNTS.T.to_csv(sep="\t", header=False)
    path.write_text(first_cell + "\t".join(RUNS) + "\n" + rows)
    runs = _table(tmp_path)
    adata = _convert(path, genes_as_rows=True, units="counts", runs=runs)
    expected = COUNTS.groupby(EXPERIMENTS).sum()
    assert np.array_equal(adata.to_df().loc[expected.index], expected)


@pytest.mark.parametrize("block_bytes", [1, 2**25])
@pytest.mark.parametrize("make", [_bulk, _long])
def test_runs_are_summed_to_experiments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path],
    block_bytes: int,
) -> None:
    monkeypatch.setattr("m1pipe.data.matrix.BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("m1pipe.io.conversion.loaded.BLOCK_BYTES", block_bytes)
    adata = _convert(make(tmp_path / "source"), runs=_table(tmp_path))
    expected = COUNTS.groupby(EXPERIMENTS).sum()
    assert sorted(adata.obs_names) == expected.index.tolist() and adata.obs_names[-1] == "SRX0"
    assert np.array_equal(adata.to_df().loc[expected.index], expected)
    sizes = pd.Series(EXPERIMENTS).value_counts()
    assert adata.obs["n_runs"].to_dict() == sizes[adata.obs_names].to_dict()
    assert adata.obs["SRP_accession"].tolist() == ["SRP1"] * 8


@pytest.mark.parametrize(("qc", "levels"), [("pass", ("PASS",)), ("warn", ("PASS", "WARN"))])
def test_runs_are_chosen_by_quality(tmp_path: Path, qc: str, levels: tuple[str, ...]) -> None:
    kept = [q.startswith(levels) for q in QUALITY]
    adata = _convert(_bulk(tmp_path / "se.h5"), runs=_table(tmp_path), qc=qc)
    expected = COUNTS[kept].groupby(np.array(EXPERIMENTS)[kept]).sum()
    assert np.array_equal(adata.to_df().loc[expected.index], expected)
    adata = _convert(_bulk(tmp_path / "se.h5"), labels=_table(tmp_path), qc=qc)
    assert np.array_equal(adata.to_df(), COUNTS[kept])  # without --runs every run is a sample


def test_runs_without_a_row_are_left_out(tmp_path: Path) -> None:
    table = TABLE[TABLE["SRX_accession"] != "SRX3"]
    with pytest.warns(M1Warning, match=r"3 runs have no row \(such as 'SRR2504'\): left out"):
        adata = _convert(_bulk(tmp_path / "se.h5"), runs=_table(tmp_path, table))
    expected = COUNTS.groupby(EXPERIMENTS).sum().drop(index="SRX3")
    assert np.array_equal(adata.to_df().loc[expected.index], expected)


def test_runs_of_other_units_are_not_summed(tmp_path: Path) -> None:
    COUNTS.to_csv(tmp_path / "m.tsv", sep="\t")
    settings = ConvertConfig(units="tpm", runs=_table(tmp_path))
    with pytest.raises(InputError, match="expected counts to sum runs of; found tpm"):
        convert(tmp_path / "m.tsv", tmp_path / "x.h5ad", settings)


def test_broken_bulk_files(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = _bulk(tmp_path / "se.h5")
    table = _table(tmp_path, TABLE.rename(columns={"SRX_accession": "x", "QC_summary": "q"}))
    assert "expected a column of experiments (SRX_accession" in refused(path, "--runs", table)
    assert "qc: expected the column QC_summary" in refused(path, "--labels", table, "--qc", "pass")
    other = _table(tmp_path, TABLE.set_axis([f"ERR{i}" for i in range(14)]))
    assert "expected runs such as 'SRR2500' in its first column; found 'ERR0'" in refused(
        path, "--runs", other
    )
    failed = _table(tmp_path, TABLE.assign(QC_summary="FAIL(1)"))
    assert "qc: none of 14 runs has PASS" in refused(path, "--runs", failed, "--qc", "pass")
    lone = _table(tmp_path, TABLE.assign(SRX_accession=["", *EXPERIMENTS[1:]]))
    assert "run 'SRR2500' has no experiment" in refused(path, "--runs", lone)
    with h5py.File(path, "a") as file:
        del file["rownames"]
        file["rownames"] = RUNS[1:]
    assert "expected 13 runs x 17 genes by its names, either way round" in refused(path)
    with h5py.File(path, "a") as file:
        del file["bigmatrix"]
        file["bigmatrix"] = [["36", "NULL"]]
    assert "bigmatrix: expected counts (se.h5, ke.h5); found text" in refused(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SRR1\tG1\t1\nSRR1\tG1\t2\n", "run SRR1: expected each gene once; found G1 again"),
        ("SRR1\tG1\t1\nSRR1\tG2\t2\nSRR2\tG1\t3\n", "run SRR2: expected the 2 genes of the first"),
        ("SRR1\tG1\t1\nSRR2\tG9\t3\n", "found 0 of them on 1 lines"),
        ("SRR1\tG1\t1\nSRR2\tG1\t3\nSRR1\tG1\t3\n", "lines of a run together; found SRR1 again"),
        ("SRR1\tG1\t1\nSRR1\tG2\tx\n", "lines 1 to 2: expected run, gene and count"),
        ("SRR1\tG1\t1\nSRR1\tG2\n", "lines 1 to 2: expected run, gene and count"),
        ("SRR1\tG1\t1\nSRR1\tG2\t-1\n", "a count of at least 0 on every line"),
        ("SRR1\tG1\t1\nSRR1\tG2\tinf\n", "a count of at least 0 on every line"),
        ("SRR1\tG1\t1\n\nSRR1\tG2\t4\n", "lines 1 to 3: expected run, gene and count"),
        ("SRR1\tG1\t1\nSRR1\tG2\t4\t5\n", "lines 1 to 2: expected run, gene and"),
        ("dataset\tgene\tcount\n", "expected lines of run, gene and count; found none"),
    ],
)
def test_broken_long_tables(
    tmp_path: Path, refused: Callable[..., str], text: str, reason: str
) -> None:
    (tmp_path / "se.tsv").write_text(text)
    assert reason in refused(tmp_path / "se.tsv")


def test_a_truncated_long_table(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = _long(tmp_path / "se.tsv.bz2")
    path.write_bytes(path.read_bytes()[:-10])
    assert "the compressed file ends too early" in refused(path, "--from", "dee2_long")
