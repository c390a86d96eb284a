"""Rows of a matrix in HDF5: dense, sparse, or with genes as rows.

Dense rows that lie in the file as they are wanted are read past HDF5.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from m1pipe.data.matrix import Matrix, in_memory
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io.hdf5 import read_whole

_SLAB_BYTES = 2**23
_LARGEST_BAND = 2**28


def check_shape(X: Any, obs: pd.DataFrame, var: pd.DataFrame, where: str) -> None:
    """Refuse an array whose shape is not that of its names."""
    if tuple(X) != (len(obs), len(var)):
        raise InputError(
            f"{where}: expected {len(obs)} rows x {len(var)} columns by its names; found "
            f"{' x '.join(map(str, X))}"
        )


def check_dense(X: h5py.Dataset, where: str) -> None:
    """Refuse what is not a table of numbers."""
    if X.ndim != 2 or X.dtype.kind not in "fiub":
        raise InputError(
            f"{where}: expected a two-dimensional array of numbers; found {X.ndim} dimensions of "
            f"{X.dtype}"
        )


def dense_rows(
    layout: str, X: h5py.Dataset, obs: pd.DataFrame, var: pd.DataFrame, units: Units
) -> Matrix:
    """Rows of a dense dataset, past HDF5 where they lie in the file as they are wanted.

    Parameters
    ----------
    layout : str
    X : h5py.Dataset, shape (n_samples, n_genes)
    obs : DataFrame, shape (n_samples, n_columns)
    var : DataFrame, shape (n_genes, n_columns)
    units : Units
    """
    offset = X.id.get_offset()
    if offset is None or X.dtype != np.dtype("<f4") or sys.byteorder != "little":
        band = int(X.chunks[0]) if X.chunks else 1

        def read_dataset(start: int, out: np.ndarray) -> None:
            if out.size:  # HDF5 converts to float32 on the way
                X.read_direct(out, np.s_[start : start + len(out)])

        return Matrix(read_dataset, obs, var, units, layout=layout, band=band)
    descriptor = X.file.id.get_vfd_handle()
    row_bytes = 4 * len(var)

    def read(start: int, out: np.ndarray) -> None:
        read_at(descriptor, out, offset + start * row_bytes)

    def fetch(start: int, stop: int) -> None:
        if hasattr(os, "posix_fadvise"):
            span = offset + start * row_bytes, (stop - start) * row_bytes
            os.posix_fadvise(descriptor, *span, os.POSIX_FADV_WILLNEED)

    return Matrix(read, obs, var, units, layout=layout, prefetch_rows=fetch)


def transposed_rows(
    layout: str, X: h5py.Dataset, obs: pd.DataFrame, var: pd.DataFrame, units: Units
) -> Matrix:
    """Rows of a dense dataset that has genes as its rows and samples as its columns.

    Samples of one chunk make a band, so that a chunk is inflated once a pass, unless a band would
    be larger than the memory that a block may take.

    Parameters
    ----------
    layout : str
    X : Dataset, shape (n_genes, n_samples)
    obs, var : DataFrame
    units : Units
    """
    chunk_genes, chunk_samples = X.chunks or (1, 1)

    def read(start: int, out: np.ndarray) -> None:
        stop = start + len(out)
        slab = max(_SLAB_BYTES // (4 * max(len(out), 1) * chunk_genes), 1) * chunk_genes
        for first in range(0, len(var) if out.size else 0, slab):
            out[:, first : first + slab] = X[first : first + slab, start:stop].T

    largest = max(_LARGEST_BAND // (4 * max(len(var), 1)), 1)
    band, whole = min(int(chunk_samples), largest), X if chunk_samples > largest else None
    return Matrix(read, obs, var, units, layout=layout, band=band, whole_genes=whole)


def sparse_rows(
    X: h5py.Group, kind: str, obs: pd.DataFrame, var: pd.DataFrame, units: Units
) -> Matrix:
    """Rows of a sparse matrix of h5ad; one by columns is transposed in memory.

    Parameters
    ----------
    X : h5py.Group
        With data, indices and indptr, and the attribute shape.
    kind : str
        "csr_matrix" or "csc_matrix".
    obs, var : DataFrame
    units : Units

    Raises
    ------
    InputError
        If its parts do not fit together.
    """
    where = f"{X.file.filename}: {str(X.name).lstrip('/')}"
    shape = np.asarray(X.attrs.get("shape", ()))
    if shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise InputError(f"{where}: expected a shape of two whole numbers; found {shape.tolist()}")
    check_shape(shape, obs, var, where)
    if kind == "csr_matrix":
        reader = csr_reader(X, len(obs), len(var))
        return Matrix(reader, obs, var, units, layout="h5ad_csr")
    pointers = _pointers(X, len(var), len(obs))
    values = _as_float32(read_whole(X["data"], kinds="fiub"))
    indices = read_whole(X["indices"], kinds="iu")
    try:
        _check_indices(indices, len(obs))
        columns = sparse.csc_matrix((values, indices, pointers), shape=(len(obs), len(var)))
        _refuse_repeated(columns)
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: could not be read: {error}") from None
    return in_memory(columns, obs, var, units, layout="h5ad_csc")


def csr_reader(
    group: h5py.Group, n_rows: int, n_genes: int, kept: np.ndarray | None = None
) -> Callable[[int, np.ndarray], None]:
    """Row reader of a CSR group, of some of its columns; only the row pointers are held.

    Parameters
    ----------
    group : h5py.Group
        With data, indices and indptr.
    n_rows, n_genes : int
        Rows and columns that it has.
    kept : ndarray of int, shape (n_kept,), optional
        Those that are wanted.

    Returns
    -------
    callable
        Fills an array of shape (n_rows, n_kept) from a first row on.

    Raises
    ------
    InputError
        If its parts do not fit together.
    """
    indptr = _pointers(group, n_rows, n_genes)

    def read(start: int, out: np.ndarray) -> None:
        stop = start + len(out)
        first, last = indptr[start], indptr[stop]
        values, columns = (group[key][first:last] for key in ("data", "indices"))
        pointers = indptr[start : stop + 1] - first
        _check_indices(columns, n_genes)
        rows = sparse.csr_matrix(
            (_as_float32(values), columns, pointers), shape=(stop - start, n_genes)
        )
        _refuse_repeated(rows)
        out[:] = rows.toarray() if kept is None else np.take(rows.toarray(), kept, axis=1)

    return read


def _as_float32(values: np.ndarray) -> np.ndarray:
    """Values of a sparse matrix in a type that scipy computes with; InputError on text."""
    if values.dtype.kind not in "fiub":
        raise InputError(f"sparse matrix: expected numbers; found {values.dtype}")
    return values.astype(np.float32, copy=False)


def _pointers(group: h5py.Group, n_lines: int, width: int) -> np.ndarray:
    """Where the lines of a sparse matrix begin in its values, which are as many as they say."""
    where = f"{group.file.filename}: {str(group.name).lstrip('/')}"
    for name, kinds in (("data", "fiub"), ("indices", "iu"), ("indptr", "iu")):
        part = group.get(name)
        if not isinstance(part, h5py.Dataset) or part.ndim != 1 or part.dtype.kind not in kinds:
            wanted = "numbers" if name == "data" else "whole numbers"
            raise InputError(f"{where}: expected a sparse matrix with {wanted} in {name}")
    if group["indptr"].shape != (n_lines + 1,):
        raise InputError(
            f"{where}: indptr: expected {n_lines + 1:,} row pointers; found "
            f"{len(group['indptr']):,}"
        )
    pointers = read_whole(group["indptr"]).astype(np.int64)
    n_values, n_indices = len(group["data"]), len(group["indices"])
    lengths = np.diff(pointers)
    if n_values != n_indices:
        raise InputError(
            f"{where}: expected as many indices as values; found {n_indices:,} and {n_values:,}"
        )
    if pointers[0] != 0 or pointers[-1] != n_values:
        raise InputError(
            f"{where}: indptr: expected pointers from 0 to {n_values:,}; found {pointers[0]:,} to "
            f"{pointers[-1]:,}"
        )
    if (lengths < 0).any() or (lengths > width).any():
        line = int(np.flatnonzero((lengths < 0) | (lengths > width))[0])
        raise InputError(
            f"{where}: indptr: expected 0 to {width:,} values a line; found {lengths[line]:,} in "
            f"line {line}"
        )
    return pointers


def _check_indices(indices: np.ndarray, n_columns: int) -> None:
    """Refuse indices that lead outside (OSError): scipy would follow them without a look."""
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < n_columns:
        raise OSError("an index of the sparse matrix lies outside it")


def _refuse_repeated(matrix: Any) -> None:
    """Refuse a place that stands twice in a line (OSError): which value holds, none can say."""
    if not matrix.has_canonical_format:
        once = matrix.copy()
        once.sum_duplicates()
        if once.nnz != matrix.nnz:
            raise OSError("an index of the sparse matrix stands twice in a line")


def read_at(descriptor: int, out: np.ndarray, offset: int) -> None:
    """Fill an array with the bytes at a position of a file.

    Parameters
    ----------
    descriptor : int
        Of a file open for reading; its own position does not matter and is left alone.
    out : ndarray of any shape, C-contiguous
    offset : int
        In bytes.

    Raises
    ------
    OSError
        If the file cannot be read, or ends early.
    """
    if not out.size:
        return
    view = out.data.cast("B")
    while view:
        n_read = os.preadv(descriptor, [view], offset)
        if n_read == 0:
            raise OSError("the file ends early")
        view, offset = view[n_read:], offset + n_read
