"""The layouts that are read in place: h5ad (dense, CSR, CSC) and the flat HDF5 of the DTU files."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse

from m1pipe.data.rawio import prefetch, read_at
from m1pipe.data.units import Units, read_units
from m1pipe.errors import InputError

FLAT_KEYS = ("expressions", "row_names", "col_names")


@dataclass(frozen=True)
class Stored:
    """Where the rows of a matrix come from.

    Attributes
    ----------
    layout : str
        "memory", "h5ad", "h5ad_csr", "h5ad_csc" or "flat".
    read_rows : callable
        (start, stop) -> fresh C-contiguous float32 array, shape (stop - start, n_genes).
    obs, var : DataFrame
        Annotations, indexed by sample and by gene names.
    units : Units
    band : int
        Rows that are stored together: reading one costs as much as reading all of them.
    prefetch_rows : callable or None
        (start, stop): asks the system to fetch rows that will be read soon.
    """

    layout: str
    read_rows: Callable[[int, int], np.ndarray]
    obs: pd.DataFrame
    var: pd.DataFrame
    units: Units
    band: int = 1
    prefetch_rows: Callable[[int, int], None] | None = None


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        If it is missing, cannot be read, is cut short, or is not HDF5.
    """
    if not path.exists():
        raise InputError(f"{path}: expected a file; there is none of that name")
    if path.is_dir():
        raise InputError(f"{path}: expected a file; found a folder")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: expected an HDF5 file; found an empty file")
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        reason = str(error)
    if "signature not found" in reason:
        raise InputError(
            f"{path}: expected an HDF5 file (h5ad or flat); found another kind of file: text is "
            "turned into h5ad by `m1pipe convert`"
        )
    raise InputError(f"{path}: could not be read as HDF5: {reason}")


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
    found = ", ".join(sorted(handle)[:12]) or "none"
    raise InputError(
        f"{path}: expected h5ad (X, obs, var) or flat HDF5 ({', '.join(FLAT_KEYS)}); "
        f"found the keys {found}"
    )


def in_memory(
    X: Any, obs: pd.DataFrame, var: pd.DataFrame, units: Units, *, layout: str = "memory"
) -> Stored:
    """Rows of an array or of a scipy sparse matrix.

    Parameters
    ----------
    X : ndarray or scipy sparse matrix, shape (n_samples, n_genes)
    obs, var : DataFrame
    units : Units
    layout : str
        What the array was made from.
    """
    if X.shape != (len(obs), len(var)):
        raise InputError(
            f"matrix: expected {len(obs)} samples x {len(var)} genes by the names; "
            f"found an array of shape {X.shape}"
        )
    if sparse.issparse(X):
        rows = X.tocsr()
        return Stored(layout, lambda i, j: _dense(rows[i:j].toarray()), obs, var, units)
    return Stored(layout, lambda i, j: np.array(X[i:j], np.float32, order="C"), obs, var, units)


def _dense(X: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(X, dtype=np.float32)


def _check_shape(X: Any, obs: pd.DataFrame, var: pd.DataFrame, where: str) -> None:
    if tuple(X) != (len(obs), len(var)):
        raise InputError(
            f"{where}: expected {len(obs)} rows x {len(var)} columns by its names; found "
            f"{' x '.join(map(str, X))}"
        )


def _dense_rows(
    layout: str, X: h5py.Dataset, obs: pd.DataFrame, var: pd.DataFrame, units: Units
) -> Stored:
    """Rows of a dense dataset, past HDF5 where they lie in the file as they are wanted."""
    offset = X.id.get_offset()
    if offset is None or X.dtype != np.dtype("<f4") or sys.byteorder != "little":
        band = int(X.chunks[0]) if X.chunks else 1
        return Stored(layout, _read_dataset(X), obs, var, units, band)
    descriptor = X.file.id.get_vfd_handle()
    row_bytes = 4 * len(var)

    def read(start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, len(var)), dtype=np.float32)
        read_at(descriptor, out, offset + start * row_bytes)
        return out

    def fetch(start: int, stop: int) -> None:
        prefetch(descriptor, offset + start * row_bytes, (stop - start) * row_bytes)

    return Stored(layout, read, obs, var, units, prefetch_rows=fetch)


def _read_dataset(dataset: h5py.Dataset) -> Callable[[int, int], np.ndarray]:
    """Row reader of a dense dataset; HDF5 converts to float32 on the way."""

    def read(start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, dataset.shape[1]), dtype=np.float32)
        if out.size:
            dataset.read_direct(out, np.s_[start:stop])
        return out

    return read


def _read_csr(group: h5py.Group, n_genes: int) -> Callable[[int, int], np.ndarray]:
    """Row reader of a CSR group; only the row pointers are held."""
    indptr = group["indptr"][:]

    def read(start: int, stop: int) -> np.ndarray:
        first, last = indptr[start], indptr[stop]
        parts = (group["data"][first:last], group["indices"][first:last])
        pointers = indptr[start : stop + 1] - first
        rows = sparse.csr_matrix((*parts, pointers), shape=(stop - start, n_genes))
        return _dense(rows.toarray())

    return read


def _h5ad(handle: h5py.File, path: Path) -> Stored:
    obs, var = (_read_frame(handle, key, path) for key in ("obs", "var"))
    units = read_units(_read_uns(handle), str(path))
    X = handle["X"]
    if isinstance(X, h5py.Dataset):
        _check_dense(X, f"{path}: X")
        _check_shape(X.shape, obs, var, f"{path}: X")
        return _dense_rows("h5ad", X, obs, var, units)
    kind = str(X.attrs.get("encoding-type", ""))
    if kind not in ("csr_matrix", "csc_matrix"):
        raise InputError(f"{path}: X: expected a dense, CSR or CSC matrix; found {kind or 'none'}")
    _check_shape(X.attrs["shape"], obs, var, f"{path}: X")
    if kind == "csr_matrix":
        return Stored("h5ad_csr", _read_csr(X, len(var)), obs, var, units)
    rows = sparse.csc_matrix(
        (X["data"][:], X["indices"][:], X["indptr"][:]), shape=(len(obs), len(var))
    )
    return in_memory(rows, obs, var, units, layout="h5ad_csc")


def _flat(handle: h5py.File, path: Path) -> Stored:
    X = handle["expressions"]
    _check_dense(X, f"{path}: expressions")
    obs = pd.DataFrame(index=pd.Index(read_names(handle["row_names"]), dtype=object))
    var = pd.DataFrame(index=pd.Index(read_names(handle["col_names"]), dtype=object))
    _check_shape(X.shape, obs, var, f"{path}: expressions")
    for key, item in handle.items():
        if key not in FLAT_KEYS and isinstance(item, h5py.Dataset) and item.shape == (len(obs),):
            obs[key] = read_names(item) if item.dtype.kind in "OS" else item[:]
    stated = {k: v for k, v in handle.attrs.items() if k in ("units", "target_sum")}
    units = read_units(stated, str(path))
    return _dense_rows("flat", X, obs, var, units)


def _check_dense(X: h5py.Dataset, where: str) -> None:
    if X.ndim != 2 or X.dtype.kind not in "fiub":
        raise InputError(
            f"{where}: expected a two-dimensional array of numbers; found {X.ndim} dimensions of "
            f"{X.dtype}"
        )


def read_names(dataset: h5py.Dataset) -> np.ndarray:
    """One-dimensional text dataset as an object array of str; numbers become their text."""
    values = dataset[:]
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=object)


def _read_frame(handle: h5py.File, key: str, path: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata's notes on old encodings concern its writers
            frame = read_elem(handle[key])
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: {key} could not be read: {error}") from None
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{path}: {key}: expected a table; found {type(frame).__name__}")
    frame.index = pd.Index(frame.index.astype(str), dtype=object, name=frame.index.name)
    return frame


def _read_uns(handle: h5py.File) -> dict[str, Any]:
    """The entries of `uns` that concern units; nothing else of it is read."""
    uns = handle.get("uns")
    if not isinstance(uns, h5py.Group):
        return {}
    return {k: read_elem(uns[k]) for k in ("units", "target_sum") if k in uns}
