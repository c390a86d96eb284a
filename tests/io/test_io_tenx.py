"""10x: Cell Ranger's HDF5 and folders, old and new, are read as the same cells and genes."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse
from scipy.io import mmwrite

from m1pipe import open_matrix
from m1pipe.cli.main import run
from m1pipe.data.units import Units
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert

RNG = np.random.default_rng(6)
N_FEATURES, N_CELLS = 23, 31
COUNTS = RNG.poisson(RNG.gamma(0.6, 3, (N_FEATURES, 1)), (N_FEATURES, N_CELLS))  # features x cells
IDS = [f"ENSG{i:011d}" for i in range(N_FEATURES)]
SYMBOLS = [f"SYM{i}" for i in range(N_FEATURES)]
KINDS = ["Antibody Capture" if i % 6 == 4 else "Gene Expression" for i in range(N_FEATURES)]
GENES = np.array([i for i in range(N_FEATURES) if i % 6 != 4])
CELLS = [f"{'ACGT'[i % 4] * 4}{i:04d}-1" for i in range(N_CELLS)]


def _h5(path: Path, *, version: int = 3, genome: str = "GRCh38") -> Path:
    columns = sparse.csc_matrix(COUNTS)
    with h5py.File(path, "a") as file:
        group = file.create_group("matrix" if version == 3 else genome)
        group["barcodes"] = np.array(CELLS, dtype="S")
        group["shape"] = np.array(COUNTS.shape, dtype=np.int32)
        for part in ("data", "indices", "indptr"):
            values = getattr(columns, part).astype(np.int64 if part == "indptr" else np.int32)
            group.create_dataset(part, data=values, compression="gzip")
        if version == 2:
            group["genes"] = np.array(IDS, dtype="S")
            group["gene_names"] = np.array(SYMBOLS, dtype="S")
            return path
        parts = {"id": IDS, "name": SYMBOLS, "feature_type": KINDS, "genome": ["GRCh38"] * 23}
        for key, values in parts.items():
            group[f"features/{key}"] = np.array(values, dtype="S")
        group["features/_all_tag_keys"] = np.array(["genome"], dtype="S")
    return path


def _folder(path: Path, *, version: int = 3, order: str = "cells") -> Path:
    path.mkdir()
    entries = sparse.coo_matrix(COUNTS if order == "genes" else sparse.csc_matrix(COUNTS))
    mmwrite(path / "matrix.mtx", entries, field="integer", comment=" produced by a test")
    if order == "mixed":
        head, *rows = (path / "matrix.mtx").read_text().split("\n")
        at = 2 if rows[1].startswith("%") else 1
        body = [r for r in rows[at + 1 :] if r]
        RNG.shuffle(body)
        (path / "matrix.mtx").write_text("\n".join([head, *rows[: at + 1], *body]) + "\n")
    fields = zip(IDS, SYMBOLS, KINDS, strict=True)
    lines = ["\t".join(f[: 2 if version == 2 else 3]) for f in fields]
    (path / ("genes.tsv" if version == 2 else "features.tsv")).write_text("\n".join(lines) + "\n")
    (path / "barcodes.tsv").write_text("\n".join(CELLS) + "\n")
    if version == 3:
        for file in list(path.iterdir()):
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    return path


def _convert(source: Path, **settings: Any) -> anndata.AnnData:
    dest = source.with_name("out.h5ad")
    convert(source, dest, ConvertConfig(**settings), force=True)
    return anndata.read_h5ad(dest)


def test_the_fixture_holds_genes_and_others() -> None:
    assert 0 < len(GENES) < N_FEATURES and COUNTS[4].any() and (COUNTS == 0).mean() > 0.2


@pytest.mark.parametrize("version", [2, 3])
def test_hdf5_is_read_in_place(tmp_path: Path, version: int) -> None:
    kept = GENES if version == 3 else np.arange(N_FEATURES)
    with open_matrix(_h5(tmp_path / "filtered.h5", version=version)) as matrix:
        assert matrix.layout == "10x_h5" and matrix.units == Units("counts")
        assert matrix.samples.tolist() == CELLS
        assert matrix.genes.tolist() == [IDS[i] for i in kept]
        assert matrix.var["symbol"].tolist() == [SYMBOLS[i] for i in kept]
        assert np.array_equal(matrix.read(), COUNTS.T[:, kept])
        assert np.array_equal(matrix.take(np.array([7, 2])), COUNTS.T[[7, 2]][:, kept])
    assert np.array_equal(_convert(tmp_path / "filtered.h5").X, COUNTS.T[:, kept])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["cells", "genes", "mixed"])
@pytest.mark.parametrize("read_bytes", [40, 2**20])
def test_a_folder_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, order: str, read_bytes: int
) -> None:
    monkeypatch.setattr("m1pipe.io.text.lines._READ_BYTES", read_bytes)
    kept = GENES if version == 3 else np.arange(N_FEATURES)
    adata = _convert(_folder(tmp_path / "matrix", version=version, order=order))
    assert np.array_equal(adata.X, COUNTS.T[:, kept]) and adata.uns["units"] == "counts"
    assert adata.obs_names.tolist() == CELLS
    assert adata.var_names.tolist() == [IDS[i] for i in kept]
    assert adata.var["symbol"].tolist() == [SYMBOLS[i] for i in kept]


def test_the_command_normalises_a_folder(tmp_path: Path, capsys: Any) -> None:
    options = "--normalize total --target-sum 1e4 --log2p1 --zero-total drop".split()
    source = str(_folder(tmp_path / "matrix"))
    assert run(["convert", source, str(tmp_path / "x.h5ad"), *options]) == 0
    assert "31 samples x 19 genes, log2_normalized1 (target sum 10000)" in capsys.readouterr().out


def _change(path: Path, key: str, value: Any) -> Path:
    with h5py.File(path, "a") as file:
        del file[key]
        if value is not None:
            file[key] = value
    return path


def test_broken_hdf5(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = _h5(tmp_path / "a.h5")
    _change(path, "matrix/features/feature_type", np.array(["Antibody Capture"] * 23, dtype="S"))
    assert "/matrix/features: expected features of 'Gene Expression'; found Ant" in refused(path)
    path = _change(_h5(tmp_path / "b.h5"), "matrix/barcodes", np.array(CELLS[1:], dtype="S"))
    assert "matrix/shape: expected 23 features x 30 barcodes by the names; found" in refused(path)
    path = _change(_h5(tmp_path / "c.h5"), "matrix/indptr", None)
    assert "c.h5: expected h5ad (X, obs, var), flat HDF5" in refused(path)
    path = _h5(_h5(tmp_path / "d.h5", version=2), version=2, genome="mm10")
    assert "expected counts of one genome; found GRCh38, mm10" in refused(path)
    path = _change(_h5(tmp_path / "e.h5"), "matrix/indices", np.full((COUNTS > 0).sum(), 99))
    assert "could not be read" in refused(path)


MTX = "%%MatrixMarket matrix coordinate integer general\n%\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: expected %%MatrixMarket matrix coordinate ... general; found 'nothing'"),
        ("%%MatrixMarket matrix array real general\n1 1\n1\n", "line 1: expected %%MatrixMarket"),
        (f"{MTX}23 30 1\n1 1 1\n", "line 3: expected 23 features x 31 barcodes by the names"),
        (f"{MTX}23 31\n1 1 1\n", "line 3: expected three sizes"),
        (f"{MTX}23 31 3\n1 1 1\n2 2 2\n", "expected 3 entries; found 2: was it cut short?"),
        (f"{MTX}23 31 2\n1 1 1\n24 2 2\n", "lines 4 to 5: an entry lies outside the matrix"),
        (f"{MTX}23 31 2\n1 1 1\n0 2 2\n", "lines 4 to 5: an entry lies outside the matrix"),
        (f"{MTX}23 31 2\n1 1 1\n1 1 2\n", "lines 4 to 5: expected every entry once"),
        (f"{MTX}23 31 2\n1 1 1\n1 2 x\n", "lines 4 to 5: expected feature, barcode and a count"),
        (f"{MTX}23 31 2\n1 1 1\n1 2\n", "lines 4 to 5: expected feature, barcode and a count"),
        (f"{MTX}23 31 2\n1 1 1\n1 2 -4\n", "lines 4 to 5: expected feature, barcode and a count"),
        (f"{MTX}23 31 2\n1 1 1\n1.5 2 4\n", "lines 4 to 5: expected whole positions"),
        (
            f"{MTX}23 31 2\n1 1 1\n1 2 1e20\n",
            "expected counts up to 1e+15; found 1e+20 in sample 'CCCC",
        ),
    ],
)
def test_broken_entries(
    tmp_path: Path, refused: Callable[..., str], text: str, reason: str
) -> None:
    folder = _folder(tmp_path / "matrix", version=2)
    (folder / "matrix.mtx").write_text(text)
    assert reason in refused(folder)


def test_broken_folders(tmp_path: Path, refused: Callable[..., str]) -> None:
    folder = _folder(tmp_path / "matrix")
    (folder / "features.tsv.gz").rename(folder / "f.tsv")
    assert "with features.tsv or genes.tsv (.gz); found barcodes.tsv.gz, f.tsv" in refused(folder)
    (folder / "features.tsv").write_text("ENSG1\tA\tGene Expression\nENSG2\tB\n")
    assert "line 2: expected an id and a name, as many fields as in the first" in refused(folder)
    (folder / "features.tsv").write_text("ENSG1\tA\tPeaks\n" * 23)
    assert "expected features of 'Gene Expression'; found Peaks" in refused(folder)
    (folder / "features.tsv").write_text("ENSG1\tA\tGene Expression\n" * 23)
    assert "genes: expected unique names; found 'ENSG1'" in refused(folder)
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(b""))
    assert "expected names; found an empty file" in refused(folder)
    assert "expected a folder of 10x" in refused(folder / "f.tsv", "--from", "10x")


def test_no_room_for_the_dense_cells(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("m1pipe.io.sources.tenx.os.posix_fallocate", full)
    assert "a temporary copy beside the destination: No space" in refused(_folder(tmp_path / "m"))
