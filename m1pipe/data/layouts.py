"""The layouts of HDF5 that are read in place, recognised by the keys that they hold."""

import warnings
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
from anndata.io import read_elem

from m1pipe.data.hdf5 import check_sizes, read_names, read_whole
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
from m1pipe.data.units import read_units
from m1pipe.errors import InputError

FLAT_KEYS = ("expressions", "row_names", "col_names")


def find_stored(handle: h5py.File, path: Path) -> Stored:
    """Recognise the layout of an open HDF5 file.

    Raises
    ------
    InputError
        If the layout is not known (naming the keys found) or its parts do not fit together.
    """
    if set(FLAT_KEYS) <= set(handle):
        return _flat(handle, path)
    if {"X", "obs", "var"} <= set(handle):
        return _h5ad(handle, path)
    if is_archs4(handle):
        return archs4_stored(handle, path)
    if is_dee2(handle):
        return dee2_stored(handle, path)
    if is_tenx(handle):
        return tenx_stored(handle, path)
    found = ", ".join(sorted(handle)[:12]) or "none"
    raise InputError(
        f"{path}: expected h5ad (X, obs, var), flat HDF5 ({', '.join(FLAT_KEYS)}), ARCHS4 "
        f"(data, meta), DEE2 (bigmatrix) or 10x (matrix); found the keys {found}"
    )


def _h5ad(handle: h5py.File, path: Path) -> Stored:
    obs, var = (_read_frame(handle, key, path) for key in ("obs", "var"))
    units = read_units(_read_uns(handle), str(path))
    X = handle["X"]
    if isinstance(X, h5py.Dataset):
        check_dense(X, f"{path}: X")
        check_shape(X.shape, obs, var, f"{path}: X")
        return dense_rows("h5ad", X, obs, var, units)
    kind = str(X.attrs.get("encoding-type", ""))
    if kind not in ("csr_matrix", "csc_matrix"):
        raise InputError(f"{path}: X: expected a dense, CSR or CSC matrix; found {kind or 'none'}")
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata's notes on old encodings concern its writers
            frame = read_elem(handle[key])
    except Exception as error:  # noqa: BLE001 - anndata raises errors of its own, which are private
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: {key} could not be read: {reason}") from None
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{path}: {key}: expected a table; found {type(frame).__name__}")
    frame.index = pd.Index(frame.index.astype(str), dtype=object, name=frame.index.name)
    return frame


def _read_uns(handle: h5py.File) -> dict[str, Any]:
    """The entries of `uns` that concern units; nothing else of it is read."""
    uns = handle.get("uns")
    if not isinstance(uns, h5py.Group):
        return {}
    try:
        return {k: read_elem(uns[k]) for k in ("units", "target_sum") if k in uns}
    except Exception as error:  # noqa: BLE001 - anndata raises errors of its own, which are private
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{handle.filename}: uns could not be read: {reason}") from None
