"""ARCHS4 files of the true layout: read in place and converted alike, samples chosen by GEO."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from m1pipe import open_matrix
from m1pipe.cli.main import run
from m1pipe.data import matrix as matrix_module
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io import rows as rows_module
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert

RNG = np.random.default_rng(3)
N_GENES, N_SAMPLES = 37, 53
COUNTS = RNG.poisson(RNG.gamma(2, 200, (N_GENES, 1)), (N_GENES, N_SAMPLES)).astype(np.uint32)
IDS = [f"ENSG{i:011d}" for i in range(N_GENES)]
SYMBOLS = [f"SYM{i % 35}" for i in range(N_GENES)]  # the last two repeat the first two
ACCESSIONS = [f"GSM{1000 + i}" for i in range(N_SAMPLES)]
SERIES = [f"GSE{i // 10}" if i % 7 else f"GSE{i // 10},GSE99" for i in range(N_SAMPLES)]
SOURCES = [["Liver tissue", "whole blood", "HEK293 cells"][i % 3] for i in range(N_SAMPLES)]
SINGLE = np.linspace(0, 1, N_SAMPLES)


def _write(path: Path, *, symbol: str = "symbol", ensembl: str | None = "ensembl_gene_id") -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("data/expression", data=COUNTS, chunks=(16, 6), compression="gzip")
        file[f"meta/genes/{symbol}"] = SYMBOLS
        if ensembl:
            file[f"meta/genes/{ensembl}"] = IDS
            file["meta/genes/biotype"] = ["protein_coding"] * N_GENES
        samples = {
            "geo_accession": ACCESSIONS,
            "series_id": SERIES,
            "source_name_ch1": SOURCES,
            "title": [f"sample {i}" for i in range(N_SAMPLES)],
            "singlecellprobability": SINGLE,
        }
        for key, values in samples.items():
            file[f"meta/samples/{key}"] = values
        file["info/version"] = "2.2"
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return _write(tmp_path / "human_gene.h5")


def _convert(path: Path, **settings: Any) -> anndata.AnnData:
    convert(path, path.with_name("out.h5ad"), ConvertConfig(**settings), force=True)
    return anndata.read_h5ad(path.with_name("out.h5ad"))


@pytest.mark.parametrize("block_bytes", [1, 3000, 2**25])
@pytest.mark.parametrize("slab_bytes", [1, 2**23])
def test_it_is_read_in_place(
    path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, slab_bytes: int
) -> None:
    monkeypatch.setattr(matrix_module, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(rows_module, "_SLAB_BYTES", slab_bytes)
    with open_matrix(path) as matrix:
        assert matrix.layout == "archs4" and matrix.units == Units("counts")
        assert matrix.samples.tolist() == ACCESSIONS and matrix.genes.tolist() == IDS
        assert matrix.var["symbol"].tolist() == SYMBOLS
        assert matrix.obs["source_name_ch1"].tolist() == SOURCES
        assert isinstance(matrix.obs["source_name_ch1"].dtype, pd.CategoricalDtype)
        assert matrix.obs["singlecellprobability"].to_numpy() == pytest.approx(SINGLE)
        assert np.array_equal(matrix.read(), COUNTS.T)
        rows = np.array([50, 3, 3, 17])
        assert np.array_equal(matrix.take(rows), COUNTS.T[rows])


@pytest.mark.parametrize("symbol", ["symbol", "gene_symbol"])
@pytest.mark.parametrize("ensembl", ["ensembl_gene", "ensembl_id"])
def test_the_names_of_genes_are_probed(tmp_path: Path, symbol: str, ensembl: str) -> None:
    with open_matrix(_write(tmp_path / "a.h5", symbol=symbol, ensembl=ensembl)) as matrix:
        assert matrix.genes.tolist() == IDS and matrix.var["symbol"].tolist() == SYMBOLS
    with open_matrix(_write(tmp_path / "b.h5", symbol=symbol, ensembl=None)) as matrix:
        assert matrix.genes.tolist() == SYMBOLS


def test_transcripts_and_probabilities_as_text(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.move("meta/genes", "meta/transcripts")
        del file["meta/samples/singlecellprobability"]
        file["meta/samples/singlecellprobability"] = [f"{p:.4f}" for p in SINGLE]
    with open_matrix(path) as matrix:
        assert matrix.genes.tolist() == IDS
        assert matrix.obs["singlecellprobability"].to_numpy() == pytest.approx(SINGLE, abs=1e-4)


def test_chunks_are_inflated_once_a_pass(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    with open_matrix(path) as matrix:
        monkeypatch.setattr(matrix_module, "BLOCK_BYTES", 4 * N_GENES * 13)
        wanted = np.arange(1, N_SAMPLES, 2)
        for rows in matrix.bands(wanted):
            read.append((int(rows[0]) // 12, int(rows[-1]) // 12))
    assert all(first == last for first, last in read) and len(read) == 5


@pytest.mark.parametrize("settings", [{}, {"where": "source_name_ch1~liver"}])
def test_chunks_of_whole_genes_are_turned_round_on_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(rows_module, "_LARGEST_BAND", 4 * N_GENES * 2)
    with open_matrix(path) as matrix:
        assert matrix.whole_genes is not None and np.array_equal(matrix.read(), COUNTS.T)
    kept = [not settings or s == SOURCES[0] for s in SOURCES]
    assert np.array_equal(_convert(path, **settings).X, COUNTS.T[kept])


def test_convert_takes_everything(path: Path) -> None:
    adata = _convert(path)
    assert np.array_equal(adata.X, COUNTS.T) and adata.uns["units"] == "counts"
    assert adata.obs["series_id"].tolist() == SERIES


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"where": "source_name_ch1~liver|BLOOD"}, [s != SOURCES[2] for s in SOURCES]),
        ({"where": "*~sample 1"}, [str(i).startswith("1") for i in range(N_SAMPLES)]),
        ({"where": "singlecellprobability > 0.9"}, SINGLE > 0.9),
        ({"series": ("GSE99",)}, [i % 7 == 0 for i in range(N_SAMPLES)]),
        ({"series": ("GSE2", "GSE4")}, [i // 10 in (2, 4) for i in range(N_SAMPLES)]),
        ({"single_cell_below": 0.5}, SINGLE < 0.5),
        (
            {"single_cell_below": 0.5, "where": "source_name_ch1~^liver", "series": ("GSE1",)},
            [i // 10 == 1 and i % 3 == 0 for i in range(N_SAMPLES)],
        ),
    ],
)
def test_samples_are_chosen(path: Path, settings: dict[str, Any], expected: Any) -> None:
    kept = np.flatnonzero(expected)
    assert 0 < len(kept) < N_SAMPLES
    adata = _convert(path, **settings)
    assert adata.obs_names.tolist() == [ACCESSIONS[i] for i in kept]
    assert np.array_equal(adata.X, COUNTS.T[kept])


def test_counts_become_tpm_and_logarithms(path: Path, tmp_path: Path) -> None:
    lengths = pd.Series(RNG.integers(300, 9000, N_GENES), index=IDS)
    lengths.to_csv(tmp_path / "lengths.tsv", sep="\t", header=["length"])
    adata = _convert(path, normalize="tpm", lengths=str(tmp_path / "lengths.tsv"), log2p1=True)
    rates = COUNTS.T / lengths.to_numpy()
    expected = np.log2(1 + rates / rates.sum(axis=1, keepdims=True) * 1e6)
    np.testing.assert_allclose(adata.X, expected, rtol=1e-5)
    assert adata.uns["units"] == "log2_tpm1"


def test_genes_of_one_symbol_are_summed(path: Path) -> None:
    with pytest.raises(InputError, match=r"found 'SYM0' at positions 1 and 36.*duplicates sum"):
        _convert(path, gene_names="symbol")
    adata = _convert(path, gene_names="symbol", duplicates="sum")
    expected = pd.DataFrame(COUNTS, index=SYMBOLS).groupby(level=0, sort=False).sum()
    assert adata.var_names.tolist() == expected.index.tolist() and adata.n_vars == 35
    assert np.array_equal(adata.X, expected.to_numpy().T)
    assert adata.var["source_name"].tolist() == IDS[:35]


def test_the_command_chooses(path: Path, tmp_path: Path, capsys: Any) -> None:
    options = "--from archs4 --where source_name_ch1~liver --single-cell-below 0.5 --log2p1 "
    options += "--normalize total --gene-names symbol --duplicates sum --series GSE0,GSE1"
    assert run(["convert", str(path), str(tmp_path / "x.h5ad"), *options.split()]) == 0
    assert "7 samples x 35 genes, log2_cpm1, from 53 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--where", "source_name_ch1~muscle"], "holds for none of the 53 samples"),
        (["--where", "organ~liver"], "where: expected the column organ among"),
        (["--where", "title~("], "where: found '(', which is no regular expression"),
        (["--where", "organ == 'liver'"], "found no column 'organ' at character 1"),
        (["--where", "singlecellprobability + 1"], "found arithmetic at character 1"),
        (["--series", "GSE2,GSE77"], "series: expected samples of GSE77; found none"),
        (["--single-cell-below", "0"], "no sample is below 0"),
        (["--series", "GSE5", "--single-cell-below", "0.1"], "meets all conditions together"),
        (["--from", "dee2"], "human_gene.h5: expected dee2; found archs4"),
        (["--genes-as-rows"], "--obs-columns and --var-columns are for text; found HDF5"),
    ],
)
def test_what_cannot_be_chosen(
    path: Path, refused: Callable[..., str], options: list[str], reason: str
) -> None:
    assert reason in refused(path, *options)


def _change(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "a") as file:
        del file[key]
        if value is not None:
            file[key] = value


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("meta/genes", None, "expected the groups meta/genes and meta/samples of ARCHS4 2"),
        ("meta/genes", IDS, "expected the groups meta/genes and meta/samples"),
        ("meta/samples/geo_accession", None, "/meta/samples: expected one of geo_accession"),
        ("meta/samples/geo_accession", ACCESSIONS[1:], "expected 37 genes x 52 samples by its"),
        ("data/expression", COUNTS.T, "expected 37 genes x 53 samples by its names; found 53 x"),
        ("data/expression", [["a"]], "expected a two-dimensional array of numbers"),
        ("meta/samples/geo_accession", ["GSM1"] * N_SAMPLES, "expected unique names; found 'GSM1'"),
    ],
)
def test_broken_files(
    path: Path, refused: Callable[..., str], key: str, value: Any, reason: str
) -> None:
    _change(path, key, value)
    assert reason in refused(path)


def test_links_and_references_are_refused(path: Path, refused: Callable[..., str]) -> None:
    other = _write(path.with_name("other.h5"))
    _change(path, "data/expression", h5py.ExternalLink("other.h5", "data/expression"))
    assert "data/expression: expected data; found a link to another file" in refused(path)
    _change(path, "data/expression", None)
    layout = h5py.VirtualLayout((N_GENES, N_SAMPLES), np.uint32)
    layout[:] = h5py.VirtualSource(other, "data/expression", (N_GENES, N_SAMPLES))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("data/expression", layout)
    assert "data/expression: expected data; found values kept in another file" in refused(path)
    _change(path, "data/expression", COUNTS)
    with h5py.File(path, "a") as file:
        file["meta/refs"] = np.array([file["data"].ref], dtype=h5py.ref_dtype)
    assert "meta/refs: expected numbers or text; found object references" in refused(path)


def test_links_inside_the_file_are_followed(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["meta/samples/loop"] = file["meta"]
        file["meta/samples/soft"] = h5py.SoftLink("/data")
    with open_matrix(path) as matrix:
        assert matrix.shape == (N_SAMPLES, N_GENES)


def test_a_truncated_file(path: Path, refused: Callable[..., str]) -> None:
    path.write_bytes(path.read_bytes()[:9000])
    assert "human_gene.h5: could not be read as HDF5" in refused(path)
