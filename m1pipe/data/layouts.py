"""The layouts of HDF5 that are read in place, recognised by the keys that they hold."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem

from m1pipe.data.hdf5 import check_sizes, read_names, read_whole, reading
from m1pipe.data.sources.archs4 import archs4_stored, is_archs4
from m1pipe.data.sources.dee2 import dee2_stored, is_dee2
from m1pipe.data.sources.tenx import is_tenx, tenx_stored
from m1pipe.data.stored import (
    Stored,
    check_dense,
    check_shape,
    dense_rows,
    sparse_rows,
)
from m1pipe.data.units import Units, read_logarithm, read_units
from m1pipe.errors import InputError

_FOREIGN = {
    frozenset({"matrix", "row_attrs", "col_attrs"}): "a loom file: anndata.read_loom reads it, "
    "write_h5ad writes it",
    frozenset({"mod"}): "an h5mu file: write one of its modalities as h5ad",
    frozenset({"assays", "cell.names"}): "an h5Seurat file: SeuratDisk::Convert makes h5ad of it",
}
FLAT_KEYS = ("expressions", "row_names", "col_names")


def find_stored(handle: h5py.File, path: Path, part: str = "") -> Stored:
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
        return archs4_stored(handle, path)
    if is_dee2(handle):
        return dee2_stored(handle, path)
    if is_tenx(handle):
        return tenx_stored(handle, path)
    found = ", ".join(sorted(handle)[:12]) or "none"
    for keys, words in _FOREIGN.items():
        if keys <= set(handle):
            raise InputError(f"{path}: expected h5ad; found {words}")
    raise InputError(
        f"{path}: expected h5ad (X, obs, var), flat HDF5 ({', '.join(FLAT_KEYS)}), ARCHS4 "
        f"(data, meta), DEE2 (bigmatrix) or 10x (matrix); found the keys {found}"
    )


def _h5ad(handle: h5py.File, path: Path, part: str) -> Stored:
    values, genes = _values_of(handle, path, part)
    uns = _read_uns(handle)
    obs, var = _read_frame(handle, "obs", path), _read_frame(handle, genes, path)
    units = read_units(uns, str(path)) if part in ("", "X") else Units()
    return replace(_rows_of(handle, values, obs, var, units, path), logarithm=read_logarithm(uns))


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
) -> Stored:
    """Rows of X, a layer or raw, dense or sparse."""
    X = handle[key]
    if isinstance(X, h5py.Dataset):
        check_dense(X, f"{path}: {key}")
        check_shape(X.shape, obs, var, f"{path}: {key}")
        return dense_rows("h5ad", X, obs, var, units)
    kind = str(X.attrs.get("encoding-type", ""))
    if kind not in ("csr_matrix", "csc_matrix"):
        old = (
            ": an old h5ad: read and write it with anndata" if "h5sparse_format" in X.attrs else ""
        )
        raise InputError(
            f"{path}: {key}: expected a dense, CSR or CSC matrix; found {kind or 'none'}{old}"
        )
    return sparse_rows(X, kind, obs, var, units)


def _flat(handle: h5py.File, path: Path) -> Stored:
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
            values = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]
        levels = handle.get(f"uns/{name}_categories")
        if isinstance(levels, h5py.Dataset):
            known = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in levels[:]]
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
