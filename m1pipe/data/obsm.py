"""Arrays beside X in an h5ad file: `obsm`, one row a sample, and `layers`, of the shape of X."""

import numpy as np
import pandas as pd
from anndata.io import read_elem

from m1pipe.data.hdf5 import open_hdf5, reading
from m1pipe.data.matrix import Matrix
from m1pipe.errors import InputError

PREFIX = "obsm:"


def obsm_keys(matrix: Matrix) -> list[str]:
    """Names of the arrays in `obsm`; none of a matrix that is of no h5ad file."""
    if matrix.path is None or not matrix.layout.startswith("h5ad"):
        return []
    with open_hdf5(matrix.path) as handle:
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
        found, then = (
            ", ".join(known) or "none",
            "choose by --key" if known else "m1pipe map makes one",
        )
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
    if matrix.path is None or not matrix.layout.startswith("h5ad"):
        raise InputError(f"{PREFIX}{key}: expected X in an h5ad file; found {matrix.layout}")
    known = obsm_keys(matrix)
    if key not in known:
        raise InputError(
            f"{matrix.path}: expected an array {key!r} in obsm; found {', '.join(known) or 'none'}"
        )
    with open_hdf5(matrix.path) as handle, reading(matrix.path, f"obsm/{key}"):
        array = read_elem(handle[f"obsm/{key}"])
    if hasattr(array, "toarray"):
        array = array.toarray()
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
    if matrix.path is None or not matrix.layout.startswith("h5ad"):
        return None
    with open_hdf5(matrix.path) as handle, reading(matrix.path, f"layers/{key}"):
        if f"layers/{key}" not in handle:
            return None
        layer = read_elem(handle[f"layers/{key}"])
    dense = layer.toarray() if hasattr(layer, "toarray") else layer
    return np.asarray(dense, dtype=np.float32)
