"""Files whose parts contradict each other are refused, before memory is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from m1pipe.cli.main import run
from m1pipe.errors import InputError
from m1pipe.io.hdf5 import LEAST_HOLLOW, read_whole
from m1pipe.io.reader import open_matrix

X = np.array([[1, 0, 2, 0], [0, 3, 0, 4], [5, 0, 6, 7]], dtype=np.float32)


def _adata(values: Any) -> anndata.AnnData:
    obs = pd.DataFrame({"age": [1.0, 2, 3]}, index=["a", "b", "c"])
    found = anndata.AnnData(values, obs, pd.DataFrame(index=list("wxyz")))
    found.uns["units"] = "counts"
    return found


@pytest.fixture(params=["csr", "csc", "tenx", "tenx2"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A sparse file of each storage kind, and the group of its parts."""
    path = tmp_path / f"{request.param}.h5"
    if request.param in ("csr", "csc"):
        make = sparse.csr_matrix if request.param == "csr" else sparse.csc_matrix
        _adata(make(X)).write_h5ad(path)
        return path, "X"
    rows = sparse.csr_matrix(X)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if request.param == "tenx" else "hg19")
        group["data"], group["indices"], group["indptr"] = rows.data, rows.indices, rows.indptr
        group["shape"], group["barcodes"] = [4, 3], np.array(["a", "b", "c"], "S")
        if request.param == "tenx":
            for key, letter in (("id", "e"), ("name", "n")):
                group[f"features/{key}"] = np.array([f"{letter}{i}" for i in range(4)], "S")
            group["features/feature_type"] = np.array(["Gene Expression"] * 4, "S")
        else:
            group["genes"] = np.array([f"e{i}" for i in range(4)], "S")
            group["gene_names"] = np.array([f"n{i}" for i in range(4)], "S")
    return path, "matrix" if request.param == "tenx" else "hg19"


def _replace(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "a") as file:
        attributes = dict(file[key].attrs)
        del file[key]
        file[key] = value
        file[key].attrs.update(attributes)


def _change(path: Path, key: str, change: Callable[[np.ndarray], Any]) -> None:
    with h5py.File(path) as file:
        value = change(file[key][:])
    _replace(path, key, value)


def _set(place: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[place] = value
        return values

    return change


def _read(path: Path) -> np.ndarray:
    with open_matrix(path) as matrix:
        return matrix.rows(0, matrix.n_samples)


def test_the_files_are_whole_to_begin_with(stored: tuple[Path, str]) -> None:
    np.testing.assert_array_equal(_read(stored[0]), X)


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("indptr", _set(0, 1), "expected pointers from 0"),
        ("indptr", _set(-1, 5), "expected pointers from 0 to 7; found 0 to 5"),
        ("indptr", _set(-1, 2**30), "expected pointers from 0 to 7"),
        ("indptr", _set(1, 7), "values a line; found"),
        ("indptr", lambda v: v[:-1], "row pointers; found"),
        ("indptr", lambda v: np.append(v, 7), "row pointers; found"),
        ("indptr", lambda v: v.astype(float), "whole numbers in indptr"),
        ("indptr", lambda v: v[:, None], "whole numbers in indptr"),
        ("indices", _set(0, -1), "lies outside it"),
        ("indices", _set(0, 99), "lies outside it"),
        ("indices", lambda v: v.astype(float), "whole numbers in indices"),
        ("indices", lambda v: v[:-1], "as many indices as values"),
        ("indices", lambda v: np.append(v, 0), "as many indices as values"),
        ("data", lambda v: v[:-1], "as many indices as values"),
        ("data", lambda v: v[:, None], "numbers in data"),
        ("data", lambda v: v.astype("S"), "numbers in data"),
    ],
)
def test_sparse_parts_that_contradict_each_other_are_refused(
    stored: tuple[Path, str], part: str, change: Callable[[np.ndarray], Any], reason: str
) -> None:
    path, group = stored
    _change(path, f"{group}/{part}", change)
    with pytest.raises(InputError, match=reason) as error:
        _read(path)
    assert str(path) in str(error.value)


def test_a_place_that_stands_twice_is_refused(stored: tuple[Path, str]) -> None:
    path, group = stored
    with h5py.File(path) as file:
        first, second = file[f"{group}/indptr"][:2]
        assert second - first >= 1
        wide = int(np.flatnonzero(np.diff(file[f"{group}/indptr"][:]) > 1)[0])
        start = int(file[f"{group}/indptr"][wide])
        same = int(file[f"{group}/indices"][start])
    _change(path, f"{group}/indices", _set(start + 1, same))
    with pytest.raises(InputError, match="stands twice in a line"):
        _read(path)


def test_unsorted_indices_are_read(stored: tuple[Path, str]) -> None:
    path, group = stored
    with h5py.File(path) as file:
        pointers = file[f"{group}/indptr"][:]
    wide = int(np.flatnonzero(np.diff(pointers) > 1)[0])
    place = slice(int(pointers[wide]), int(pointers[wide + 1]))

    def turn(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[place] = values[place][::-1]
        return values

    for part in ("indices", "data"):
        _change(path, f"{group}/{part}", turn)
    np.testing.assert_array_equal(_read(path), X)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("matrix/shape", [4], "expected two whole numbers"),
        ("matrix/shape", [4.0, 3.0], "whole numbers"),
        ("matrix/shape", [4, 4], "by the names"),
        ("matrix/shape", [2**40, 3], "by the names"),
        ("matrix/barcodes", np.array([["a"], ["b"], ["c"]], "S"), "expected 1 dimension of values"),
        ("matrix/barcodes", np.array(["a", "b"], "S"), "by the names"),
        ("matrix/features/id", np.array(["a", "b", "c"], "S"), "name: expected 3 entries"),
        ("matrix/features/name", np.array(["a"], "S"), "name: expected 4 entries"),
        ("matrix/features/feature_type", np.array(["Gene Expression"], "S"), "feature_type: expec"),
        ("matrix/features/id", np.array([b"a\0b", b"c", b"d", b"e"]), "found a NUL in"),
    ],
)
@pytest.mark.parametrize("stored", ["tenx"], indirect=True)
def test_names_of_10x_that_do_not_fit_are_refused(
    stored: tuple[Path, str], key: str, value: Any, reason: str
) -> None:
    _replace(stored[0], key, value)
    with pytest.raises(InputError, match=reason):
        _read(stored[0])


@pytest.mark.parametrize("stored", ["tenx", "tenx2"], indirect=True)
@pytest.mark.parametrize("parts", [["feature_type"], ["name"], ["name", "feature_type"]])
def test_parts_that_a_format_leaves_out_are_no_fault(
    stored: tuple[Path, str], parts: list[str]
) -> None:
    path, group = stored
    with h5py.File(path, "a") as file:
        for part in parts:
            name = f"features/{part}" if group == "matrix" else "gene_names"
            if name in file[group]:
                del file[group][name]
    np.testing.assert_array_equal(_read(path), X)
    with open_matrix(path) as matrix:
        assert matrix.genes.tolist() == [f"e{i}" for i in range(4)]


@pytest.mark.parametrize("key", ["obs/_index", "var/_index", "obs/age"])
def test_a_hollow_dataset_is_refused_before_memory_is_asked_for(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.h5ad"
    _adata(X).write_h5ad(path)
    with h5py.File(path, "a") as file:
        attributes = dict(file[key].attrs)
        del file[key]
        hollow = file.create_dataset(key, shape=(10**12,), dtype="f8", chunks=(1000,))
        hollow.attrs.update(attributes)
    with pytest.raises(InputError, match=r"expected 8,000,000,000,000 bytes of values"):
        open_matrix(path)


@pytest.mark.parametrize("stored", ["csr", "csc", "tenx"], indirect=True)
def test_nothing_is_asked_for_that_the_file_cannot_hold(stored: tuple[Path, str]) -> None:
    """Each lie about a size ends in a line."""
    path, group = stored
    keys = [f"{group}/{part}" for part in ("data", "indices", "indptr")]
    keys.append("matrix/barcodes" if group == "matrix" else "obs/_index")
    whole = path.read_bytes()
    for key in keys:
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            attributes, kind = dict(file[key].attrs), file[key].dtype
            del file[key]
            kind = np.dtype("S8") if kind.kind in "OS" else kind
            hollow = file.create_dataset(key, shape=(10**14,), dtype=kind, chunks=(1000,))
            hollow.attrs.update(attributes)
        with pytest.raises(InputError, match="expected"):  # a MemoryError if it were asked for
            _read(path)


def test_well_packed_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.h5ad"
    _adata(X).write_h5ad(path)
    n = LEAST_HOLLOW // 8 + 1
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/none", data=np.zeros(n), compression="gzip", chunks=(n,))
        assert not read_whole(file["layers/none"]).any()


def test_a_name_in_latin_1_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["expressions"] = X
        file["row_names"] = np.array([b"K\xf6ln", "Köln2".encode(), b"c"])
        file["col_names"] = np.array(list("wxyz"), "S")
    with open_matrix(path) as matrix:
        assert matrix.samples.tolist() == ["Köln", "Köln2", "c"]


def test_sparse_matrices_in_memory_hold_each_place_once() -> None:
    adata = anndata.AnnData(sparse.csr_matrix((2, 2)))
    adata.X = sparse.csr_matrix((np.ones(2), [1, 1], [0, 2, 2]), shape=(2, 2))
    assert adata.X.nnz == 2
    with pytest.raises(InputError, match="every place of a sparse matrix once"):
        open_matrix(adata)


BANNER = b"%%MatrixMarket matrix coordinate real general\n"


def _tenx_folder(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    texts = {
        "matrix.mtx": b"%%MatrixMarket matrix coordinate integer general\n%\n2 2 2\n1 1 3\n2 2 4\n",
        "features.tsv": b"e1\tn1\tGene Expression\ne2\tn2\tGene Expression\n",
        "barcodes.tsv": b"A-1\nB-1\n",
    }
    for name, text in (texts | files).items():
        (folder / name).write_bytes(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("barcodes.tsv", b"A-1\nB-1\nC-1\n", "expected 2 features x 3 barcodes by the names"),
        ("barcodes.tsv", b"A-1\n" * 10**6, "expected 2 features x 3 barcodes by the names"),
        ("barcodes.tsv", b"A\0\nB\n", "found a NUL|binary file"),
        (
            "matrix.mtx",
            b"%%MatrixMarket matrix coordinate real general\n" + b"%\n" * 2000,
            "at most",
        ),
        (
            "matrix.mtx",
            b"%%MatrixMarket matrix coordinate real general\n9999999999999999999 2 1\n",
            "",
        ),
    ],
)
def test_a_folder_of_10x_that_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: bytes, reason: str
) -> None:
    folder = _tenx_folder(tmp_path / "folder", **{name: text})
    assert run(["convert", str(folder), str(tmp_path / "x.h5ad")]) == 1
    said = capsys.readouterr().err
    assert reason.split("|")[0] in said or reason.split("|")[-1] in said
    assert "m1pipe: error" in said and not (tmp_path / "x.h5ad").exists()


def test_a_byte_order_mark_and_latin_1_in_a_folder_of_10x(tmp_path: Path) -> None:
    names = {"barcodes.tsv": "\ufeffA-1\nB-1\n".encode(), "features.tsv": b"e1\t\xfc\ne2\tb\n"}
    folder = _tenx_folder(tmp_path / "folder", **names)
    assert run(["convert", str(folder), str(tmp_path / "x.h5ad")]) == 0
    found = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert found.obs_names.tolist() == ["A-1", "B-1"]
    assert found.var["symbol"].tolist() == ["ü", "b"]
