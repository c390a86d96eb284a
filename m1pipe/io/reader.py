"""Open a matrix in whatever form it comes: HDF5, AnnData, a table.

The layouts of HDF5 that are read in place are recognised by the keys that they hold. Beside X an
h5ad file may hold `obsm`, arrays of one row a sample, and `layers`, of the shape of X.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem

from m1pipe.data.matrix import Matrix, in_memory
from m1pipe.data.unit_guess import inferred_sum, part_units
from m1pipe.data.units import LN, Units, read_logarithm, read_units
from m1pipe.errors import InputError
from m1pipe.io.hdf5 import (
    as_text,
    check_sizes,
    open_hdf5,
    read_names,
    read_whole,
    reading,
    split_address,
)
from m1pipe.io.rows import (
    check_dense,
    check_shape,
    dense_rows,
    sparse_rows,
)
from m1pipe.io.sources.archs4 import is_archs4, read_archs4
from m1pipe.io.sources.dee2 import is_dee2, read_dee2
from m1pipe.io.sources.tenx import is_tenx, read_tenx
from m1pipe.io.tables import read_aliases
from m1pipe.io.unreadable_formats import is_zarr

_FOREIGN = {
    frozenset({"matrix", "row_attrs", "col_attrs"}): "a loom file: anndata.read_loom reads it, "
    "write_h5ad writes it",
    frozenset({"mod"}): "an h5mu file: write one of its modalities as h5ad",
    frozenset({"assays", "cell.names"}): "an h5Seurat file: SeuratDisk::Convert makes h5ad of it",
}
FLAT_KEYS = ("expressions", "row_names", "col_names")


def open_matrix(
    source: Any, *, aliases: Mapping[str, str] | str | os.PathLike[str] | None = None
) -> Matrix:
    """Open a matrix of samples x genes in whatever form it comes.

    Parameters
    ----------
    source : path, AnnData, DataFrame, (array, names) or Matrix
        A path to h5ad, or FILE#layers/KEY or FILE#raw for another part of one, or to HDF5 in the
        flat layout or that of ARCHS4, DEE2 or 10x; a table with samples as its index and genes
        as its columns; an array with the names of its columns; a
        Matrix is returned as it is. Units of a DataFrame are read from its `attrs`, of AnnData
        from `uns`.
    aliases : mapping of str to str, or path, optional
        Other names of genes and the names that they stand for, kept with the matrix: wherever its
        genes are matched with others they are tried as well. A path is that of a table with the
        columns alias and name.

    Returns
    -------
    Matrix

    Raises
    ------
    InputError
        If the file cannot be read, its layout is not known, or the values are not numbers.
    """
    names = read_aliases(Path(aliases)) if isinstance(aliases, str | os.PathLike) else aliases
    matrix = source if isinstance(source, Matrix) else _open(source)
    if names is not None:
        matrix.aliases = names
    return matrix


def _open(source: Any) -> Matrix:
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source))
    if isinstance(source, pd.DataFrame):
        return _from_frame(source)
    if isinstance(source, tuple) and len(source) == 2:
        array, names = np.asarray(source[0]), [str(name) for name in source[1]]
        obs = pd.DataFrame(index=[str(i) for i in range(len(array))])
        return in_memory(array, obs, pd.DataFrame(index=names), Units())
    if all(hasattr(source, part) for part in ("X", "obs", "var", "uns")):
        return _settled(_from_anndata(source))
    raise InputError(
        "matrix: expected a path, AnnData, DataFrame or (array, names); found "
        f"{type(source).__name__}"
    )


def _open_path(address: Path) -> Matrix:
    path, part = split_address(address)
    if path.is_dir() and is_zarr(path):
        raise InputError(f"{path}: expected a file; found a store of zarr: m1pipe convert reads it")
    handle = open_hdf5(path)
    try:
        with reading(path, part or "the file"):
            matrix = read_layout(handle, path, part)
            matrix.path, matrix.handle = path, handle
            return _settled(matrix, part)
    except BaseException:
        handle.close()
        raise


def _settled(matrix: Matrix, part: str = "") -> Matrix:
    """The matrix with units that only its values tell: of a layer, or a target sum."""
    if part not in ("", "X") and matrix.n_samples and matrix.n_genes:
        matrix.units = part_units(part, matrix.some_rows(), matrix.logarithm)
        matrix.logarithm = "natural" if matrix.units.name == LN else ""
    if matrix.units.name == LN and matrix.units.target_sum is None and matrix.n_samples:
        matrix.units = inferred_sum(matrix.units, matrix.some_rows())
    return matrix


def _from_frame(frame: pd.DataFrame) -> Matrix:
    for name, kind in frame.dtypes.items():
        if not pd.api.types.is_numeric_dtype(kind):
            raise InputError(
                f"matrix: expected numbers in every column; found {kind} in column {name!r}: "
                "leave labels out of the table"
            )
    obs = pd.DataFrame(index=pd.Index(frame.index.astype(str), dtype=object))
    var = pd.DataFrame(index=pd.Index(frame.columns.astype(str), dtype=object))
    attrs = {str(key): value for key, value in frame.attrs.items()}
    return in_memory(frame.to_numpy(dtype=np.float32), obs, var, read_units(attrs))


def _from_anndata(adata: Any) -> Matrix:
    if adata.isbacked:
        adata = adata.to_memory()
    if adata.X is None:
        raise InputError("matrix: expected an AnnData with values; its X is None")
    matrix = in_memory(adata.X, adata.obs, adata.var, read_units(adata.uns))
    matrix.logarithm = read_logarithm(adata.uns)
    return matrix


def read_layout(handle: h5py.File, path: Path, part: str = "") -> Matrix:
    """Recognise the layout of an open HDF5 file.

    Parameters
    ----------
    handle : h5py.File
    path : Path
    part : str
        "layers/KEY" or "raw" of an h5ad file in the place of X.

    Raises
    ------
    InputError
        If the layout is not known (naming the keys found) or its parts do not fit together.
    """
    if set(FLAT_KEYS) <= set(handle):
        return _flat(handle, path)
    if {"obs", "var"} <= set(handle):
        return _h5ad(handle, path, part)
    if part:
        raise InputError(f"{path}: expected an h5ad file for #{part}; found another layout")
    if is_archs4(handle):
        return read_archs4(handle, path)
    if is_dee2(handle):
        return read_dee2(handle, path)
    if is_tenx(handle):
        return read_tenx(handle, path)
    found = ", ".join(sorted(handle)[:12]) or "none"
    for keys, words in _FOREIGN.items():
        if keys <= set(handle):
            raise InputError(f"{path}: expected h5ad; found {words}")
    raise InputError(
        f"{path}: expected h5ad (X, obs, var), flat HDF5 ({', '.join(FLAT_KEYS)}), ARCHS4 "
        f"(data, meta), DEE2 (bigmatrix) or 10x (matrix); found the keys {found}"
    )


def _h5ad(handle: h5py.File, path: Path, part: str) -> Matrix:
    values, genes = _values_of(handle, path, part)
    uns = _read_uns(handle)
    obs, var = _read_frame(handle, "obs", path), _read_frame(handle, genes, path)
    units = read_units(uns, str(path)) if part in ("", "X") else Units()
    matrix = _rows_of(handle, values, obs, var, units, path)
    matrix.logarithm = read_logarithm(uns)
    return matrix


def _values_of(handle: h5py.File, path: Path, part: str) -> tuple[str, str]:
    """Keys of the values and of the genes' annotations.

    Raises
    ------
    InputError
        Naming the parts that there are, if the one that is wanted is not there.
    """
    raw = next((key for key in ("raw/X", "raw.X") if key in handle), None)
    layers = [f"layers/{key}" for key in handle.get("layers", [])]
    there = [*layers, *(["raw"] if raw else [])]
    if part == "raw" and raw is not None:
        return raw, raw[:-1] + "var"
    if part in layers:
        return part, "var"
    if part not in ("", "X"):
        raise InputError(f"{path}: expected {part}; found {', '.join(there) or 'X alone'}")
    if "X" in handle and handle["X"].attrs.get("encoding-type", "") != "null":
        return "X", "var"
    advice = f": give {path.name}#{there[0]}, and say its units" if there else ""
    raise InputError(
        f"{path}: X is empty; layers: {', '.join(k.removeprefix('layers/') for k in layers)}"
        f"{'; raw' if raw else ''}{advice}"
    )


def _rows_of(
    handle: h5py.File, key: str, obs: pd.DataFrame, var: pd.DataFrame, units: Units, path: Path
) -> Matrix:
    """Rows of X, a layer or raw, dense or sparse."""
    X = handle[key]
    if isinstance(X, h5py.Dataset):
        check_dense(X, f"{path}: {key}")
        check_shape(X.shape, obs, var, f"{path}: {key}")
        return dense_rows("h5ad", X, obs, var, units)
    kind = str(X.attrs.get("encoding-type", ""))
    if kind not in ("csr_matrix", "csc_matrix"):
        is_old = "h5sparse_format" in X.attrs
        old = ": an old h5ad: read and write it with anndata" if is_old else ""
        raise InputError(
            f"{path}: {key}: expected a dense, CSR or CSC matrix; found {kind or 'none'}{old}"
        )
    return sparse_rows(X, kind, obs, var, units)


def _flat(handle: h5py.File, path: Path) -> Matrix:
    X = handle["expressions"]
    check_dense(X, f"{path}: expressions")
    obs = pd.DataFrame(index=pd.Index(read_names(handle["row_names"]), dtype=object))
    var = pd.DataFrame(index=pd.Index(read_names(handle["col_names"]), dtype=object))
    check_shape(X.shape, obs, var, f"{path}: expressions")
    for key, item in handle.items():
        if key not in FLAT_KEYS and isinstance(item, h5py.Dataset) and item.shape == (len(obs),):
            obs[key] = read_names(item) if item.dtype.kind in "OS" else read_whole(item)
    stated = {k: v for k, v in handle.attrs.items() if k in ("units", "target_sum")}
    units = read_units(stated, str(path))
    return dense_rows("flat", X, obs, var, units)


def _read_frame(handle: h5py.File, key: str, path: Path) -> pd.DataFrame:
    check_sizes(handle[key])
    with reading(path, key), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notes on old encodings concern its writers
        item = handle[key]
        is_old = isinstance(item, h5py.Dataset) and item.dtype.names
        frame = _old_frame(handle, item) if is_old else read_elem(item)
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{path}: {key}: expected a table; found {type(frame).__name__}")
    frame.index = pd.Index(frame.index.astype(str), dtype=object, name=frame.index.name)
    return frame


def _old_frame(handle: h5py.File, item: h5py.Dataset) -> pd.DataFrame:
    """A table of records, as anndata before 0.7 wrote it, with its categories in `uns`."""
    records = item[:]
    columns: dict[str, Any] = {}
    for name in records.dtype.names:
        values = records[name]
        if values.dtype.kind in "SO":
            values = [as_text(v) for v in values]
        levels = handle.get(f"uns/{name}_categories")
        if isinstance(levels, h5py.Dataset):
            known = [as_text(v) for v in levels[:]]
            codes = np.asarray(values, dtype=np.int64).tolist()
            columns[name] = pd.Categorical.from_codes(codes, categories=pd.Index(known))
        else:
            columns[name] = values
    first = next((name for name in ("index", "_index") if name in columns), next(iter(columns)))
    index = pd.Index(columns.pop(first), dtype=object)
    return pd.DataFrame({name: pd.Series(v, index=index) for name, v in columns.items()}, index)


def _read_uns(handle: h5py.File) -> dict[str, Any]:
    """The entries of `uns` that concern units, scanpy's log1p; nothing else of it is read."""
    uns = handle.get("uns")
    if not isinstance(uns, h5py.Group):
        return {}
    with reading(Path(handle.filename), "uns"):
        return {k: read_elem(uns[k]) for k in ("units", "target_sum", "log1p") if k in uns}


PREFIX = "obsm:"


def _h5ad_file(matrix: Matrix) -> Path | None:
    """The file that a matrix is of, if it is h5ad."""
    return matrix.path if matrix.layout.startswith("h5ad") else None


def _element(path: Path, key: str) -> Any:
    """An array or table of an h5ad file, dense; None where there is none."""
    with open_hdf5(path) as handle, reading(path, key):
        if key not in handle:
            return None
        found = read_elem(handle[key])
    return found.toarray() if hasattr(found, "toarray") else found


def obsm_keys(matrix: Matrix) -> list[str]:
    """Names of the arrays in `obsm`; none of a matrix that is of no h5ad file."""
    path = _h5ad_file(matrix)
    if path is None:
        return []
    with open_hdf5(path) as handle:
        return list(handle.get("obsm", []))


def choose_obsm(matrix: Matrix, key: str | None) -> str:
    """Name of the map that is meant: the one that is asked for, or the only one.

    Raises
    ------
    InputError
        If there is none, or several and none is asked for.
    """
    known = obsm_keys(matrix)
    if key is None and len(known) != 1:
        found = ", ".join(known) or "none"
        then = "choose by --key" if known else "m1pipe map makes one"
        raise InputError(f"{matrix.path}: expected one array in obsm; found {found}: {then}")
    return key or known[0]


def read_obsm(matrix: Matrix, key: str) -> pd.DataFrame:
    """An array of `obsm` as a table of the samples.

    Parameters
    ----------
    matrix : Matrix
        Opened from an h5ad file.
    key : str
        Name of the array.

    Returns
    -------
    DataFrame of float32, shape (n_samples, n_columns)
        Columns are named as in the file, or KEY_0, KEY_1 and so on where it names none.

    Raises
    ------
    InputError
        If the matrix is of no h5ad file, there is no such array, or it holds no numbers.
    """
    path = _h5ad_file(matrix)
    if path is None:
        raise InputError(f"{PREFIX}{key}: expected X in an h5ad file; found {matrix.layout}")
    known = obsm_keys(matrix)
    if key not in known:
        raise InputError(
            f"{matrix.path}: expected an array {key!r} in obsm; found {', '.join(known) or 'none'}"
        )
    array = _element(path, f"obsm/{key}")
    try:
        values = np.asarray(array, dtype=np.float32)
    except (TypeError, ValueError):
        values = np.empty(0, dtype=np.float32)
    if values.ndim != 2:
        raise InputError(f"{matrix.path}: obsm {key!r}: expected a table of numbers")
    named = isinstance(array, pd.DataFrame)
    names = list(map(str, array.columns)) if named else [f"{key}_{j}" for j in range(len(values.T))]
    return pd.DataFrame(values, index=pd.Index(matrix.samples), columns=pd.Index(names))


def read_layer(matrix: Matrix, key: str) -> np.ndarray | None:
    """A layer of an h5ad file.

    Parameters
    ----------
    matrix : Matrix
    key : str

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes), or None
        None if there is no such layer, or the matrix is of no h5ad file.
    """
    path = _h5ad_file(matrix)
    layer = None if path is None else _element(path, f"layers/{key}")
    return None if layer is None else np.asarray(layer, dtype=np.float32)
