"""Files as other programs leave them: parts, types and kinds that are foreign here."""

import gzip
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from said import Said
from scipy import sparse

from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix

Run = Callable[..., Said]
X = np.arange(6, dtype="f4").reshape(2, 3)


def _data(values: object) -> ad.AnnData:
    return ad.AnnData(values, pd.DataFrame(index=["a", "b"]), pd.DataFrame(index=list("xyz")))


@pytest.mark.parametrize("kind", ["f2", "f8", "i8", "u1", "?"])
@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_values_of_every_type(tmp_path: Path, kind: str, layout: str) -> None:
    path, values = tmp_path / "x.h5ad", (X > 2) if kind == "?" else X
    packed = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.array}[layout]
    _data(packed(values.astype("f4"))).write_h5ad(path)
    key = "X" if layout == "dense" else "X/data"
    with h5py.File(path, "r+") as file:
        stored, attributes = file[key][:].astype(kind), dict(file[key].attrs)
        del file[key]
        file[key] = stored
        file[key].attrs.update(attributes)
    with open_matrix(path) as matrix:
        np.testing.assert_array_equal(matrix.read(), values)


def test_parts_of_an_h5ad(m1pipe: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.h5ad"
    data = _data(None)
    data.layers["counts"] = X
    data.layers["half"] = X / 2
    data.write_h5ad(path)
    for command in (["convert", path, tmp_path / "y.h5ad"], ["train", path, "--out", "r"]):
        said = m1pipe(*command)
        assert said.code == 1
        assert "X is empty; layers: counts, half: give x.h5ad#layers/counts" in said.err
    with open_matrix(f"{path}#layers/counts") as matrix:
        np.testing.assert_array_equal(matrix.read(), X)
        assert matrix.units.is_counts and matrix.path == path
    with open_matrix(f"{path}#layers/half") as matrix:
        assert matrix.units.name == "unknown"
    with pytest.raises(InputError, match="expected layers/other; found layers/counts, layers/half"):
        open_matrix(f"{path}#layers/other")
    said = m1pipe("convert", f"{path}#layers/counts", tmp_path / "y.h5ad")
    assert said.code == 0 and ad.read_h5ad(tmp_path / "y.h5ad").uns["units"] == "counts"


def test_scaled_values_have_raw_ones(m1pipe: Run, tmp_path: Path) -> None:
    path, rng = tmp_path / "x.h5ad", np.random.default_rng(0)
    names = pd.DataFrame(index=[f"c{i}" for i in range(30)])
    genes = pd.DataFrame(index=[f"g{j}" for j in range(8)])
    data = ad.AnnData(rng.normal(size=(30, 8)).astype("f4"), names, genes)
    counts = rng.poisson(3, (30, 9)).astype("f4")
    more = pd.DataFrame(index=[*genes.index, "g8"])
    data.raw = ad.AnnData(counts, names, more)
    data.write_h5ad(path)
    said = m1pipe("convert", path, tmp_path / "y.h5ad", "--units", "tpm", "--log2p1")
    assert said.code == 1 and "z-scores" in said.err and "FILE#raw" in said.err
    assert "--floor" not in said.err
    with open_matrix(f"{path}#raw") as matrix:
        np.testing.assert_array_equal(matrix.read(), counts)
        assert matrix.genes[-1] == "g8" and matrix.units.is_counts
    arguments = ["--likelihood", "negative_binomial", "--transform", "none", "--epochs", "1"]
    said = m1pipe("train", f"{path}#raw", "--out", tmp_path / "run", "--latent", "2", *arguments)
    assert said.code == 0, said.err
    said = m1pipe("score", tmp_path / "run", f"{path}#raw", "--out", tmp_path / "s.h5ad")
    assert said.code == 0, said.err


def test_tables_of_records_as_anndata_once_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = X
        rows = [(b"s0", 0, 1.5), (b"s1", 1, 2.5)]
        kinds = [("index", "S8"), ("cell_type", "i1"), ("age", "f4")]
        file["obs"] = np.array(rows, dtype=kinds)
        file["var"] = np.array([(b"x",), (b"y",), (b"z",)], dtype=[("index", "S8")])
        file["uns/cell_type_categories"] = np.array([b"B", b"T"])
    with open_matrix(path) as matrix:
        np.testing.assert_array_equal(matrix.read(), X)
        assert matrix.obs["cell_type"].tolist() == ["B", "T"]
        assert matrix.obs["age"].tolist() == [1.5, 2.5] and list(matrix.samples) == ["s0", "s1"]


@pytest.mark.parametrize("version", ["3", "3 without names", "2", "2 without names"])
def test_tenx_without_the_parts_that_it_may_lack(tmp_path: Path, version: str) -> None:
    path, counts = tmp_path / "m.h5", sparse.csr_matrix([[1, 2, 0], [0, 3, 4]])
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version.startswith("3") else "GRCh38")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(counts, key)
        group["shape"], group["barcodes"] = [3, 2], np.array(["A-1", "B-1"], "S")
        ids, names = ("features/id", "features/name") if "3" in version else ("genes", "gene_names")
        group[ids] = np.array(["e1", "e2", "e3"], "S")
        if "without" not in version:
            group[names] = np.array(["n1", "n2", "n3"], "S")
    with open_matrix(path) as matrix:
        np.testing.assert_array_equal(matrix.read(), counts.toarray())
        assert list(matrix.genes) == ["e1", "e2", "e3"]
        expected = list(matrix.genes) if "without" in version else ["n1", "n2", "n3"]
        assert matrix.var["symbol"].tolist() == expected


def _break(path: Path, how: str) -> None:
    with h5py.File(path, "r+") as file:
        if how == "no index":
            del file["obs"].attrs["_index"]
        elif how == "no pointers":
            del file["X/indptr"]
        elif how == "no shape":
            del file["X"].attrs["shape"]
        elif how == "a column that is not there":
            file["obs"].attrs["column-order"] = np.array(["ghost"], dtype=object)
        elif how == "codes beyond the levels":
            file["obs/kind/codes"][...] = 9
        elif how == "text for numbers":
            del file["X/data"]
            file["X/data"] = np.array([b"a"] * 5)
        elif how == "var is a number":
            del file["var"]
            file["var"] = 3


@pytest.mark.parametrize(
    "how",
    [
        "no index",
        "no pointers",
        "no shape",
        "a column that is not there",
        "codes beyond the levels",
        "text for numbers",
        "var is a number",
    ],
)
def test_faults_of_structure_are_of_the_file(m1pipe: Run, tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.h5ad"
    data = _data(sparse.csr_matrix(X))
    data.obs["kind"] = pd.Categorical(["u", "v"])
    data.write_h5ad(path)
    _break(path, how)
    for command in (["convert", path, tmp_path / "y.h5ad"], ["inspect", path]):
        said = m1pipe(*command)
        assert said.code == 1, said.err
        assert "x.h5ad" in said.err


KINDS = {
    "xlsx": (b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml" + b"\0" * 50 + b"xl/", "Excel"),
    "parquet": (b"PAR1" + b"\0" * 40, "Parquet"),
    "rds": (gzip.compress(b"X\n\x00\x00\x00\x03" + b"\0" * 40), "R data (.rds)"),
    "utf16": ("\ufeffid\tg1\ns\t1\n".encode("utf-16-le"), "UTF-16"),
    "utf16 without a mark": ("id\tg1\ns1\t1\ns2\t2\n".encode("utf-16-le"), "UTF-16"),
    "macintosh": (b"id\tg1\rs1\t1\rs2\t2\r", "old Macintosh"),
    "xls": (b"\xd0\xcf\x11\xe0" + b"\0" * 40, "Excel"),
    "series matrix": (b'!Series_title\t"x"\n!series_matrix_table_begin\n', "GEO series matrix"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "web page"),
}


@pytest.mark.parametrize("name", KINDS)
def test_foreign_kinds_are_called_by_their_names(m1pipe: Run, tmp_path: Path, name: str) -> None:
    content, word = KINDS[name]
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "good.tsv").write_text("s\tg1\ns1\t1\n")
    said = m1pipe("convert", tmp_path / "x", tmp_path / "y.h5ad")
    assert said.code == 1 and word in said.err and "expected" in said.err, said.err
    said = m1pipe("convert", tmp_path / "good.tsv", tmp_path / "y.h5ad", "--labels", tmp_path / "x")
    assert said.code == 1 and word in said.err, said.err


@pytest.mark.parametrize(
    ("keys", "word"),
    [(("matrix", "row_attrs", "col_attrs"), "loom"), (("mod", "obs"), "h5mu")],
)
def test_foreign_hdf5_is_called_by_its_name(
    m1pipe: Run, tmp_path: Path, keys: tuple[str, ...], word: str
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for key in keys:
            file.create_group(key)
    said = m1pipe("convert", tmp_path / "x.h5", tmp_path / "y.h5ad")
    assert said.code == 1 and word in said.err


def test_a_folder_of_ids_alone(m1pipe: Run, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/features.tsv").write_text("e1\ne2\n")
    (tmp_path / "m/barcodes.tsv").write_text("A\nB\n")
    banner = "%%MatrixMarket matrix coordinate integer general\n"
    (tmp_path / "m/matrix.mtx").write_text(f"{banner}2 2 2\n1 1 5\n2 2 7\n")
    said = m1pipe("convert", tmp_path / "m", tmp_path / "y.h5ad")
    assert said.code == 0, said.err
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "y.h5ad").X, [[5, 0], [0, 7]])


def test_latin_text_is_named(m1pipe: Run, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes("s\tg1\nJos\xe9\t1\n".encode("latin-1"))
    said = m1pipe("convert", tmp_path / "x.tsv", tmp_path / "y.h5ad")
    assert said.code == 1 and "line 2: expected UTF-8 text" in said.err and "iconv" in said.err


def test_a_packed_file_needs_no_name(m1pipe: Run, tmp_path: Path) -> None:
    for name in ("x.tsv.gz", "x.tsv", "x"):
        with gzip.open(tmp_path / name, "wt") as file:
            file.write("s\tg1\tg2\nS1\t1\t2\nS2\t3\t4\n")
        said = m1pipe("convert", tmp_path / name, tmp_path / "y.h5ad", "--force")
        assert said.code == 0
        np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "y.h5ad").X, [[1, 2], [3, 4]])


def test_x_said_by_name_has_the_units_of_the_file(tmp_path: Path) -> None:
    data = ad.AnnData(np.ones((2, 2), "f4"))
    data.uns["units"] = "log2_tpm1"
    data.write_h5ad(tmp_path / "x.h5ad")
    with open_matrix(f"{tmp_path / 'x.h5ad'}#X") as matrix:
        assert matrix.units.name == "log2_tpm1"
