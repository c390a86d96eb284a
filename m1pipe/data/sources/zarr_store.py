"""Stores of zarr that hold AnnData, read whole."""

import warnings
from pathlib import Path

import anndata as ad

from m1pipe.data.hdf5 import reading, split_address
from m1pipe.errors import InputError


def read_zarr(address: Path) -> ad.AnnData:
    """AnnData of a store, or with #layers/KEY or #raw that part of it as X.

    Raises
    ------
    InputError
        If the store is of something else, or lacks the part.
    """
    path, part = split_address(address)
    try:
        from anndata.io import read_zarr as read
    except ImportError:
        raise InputError(
            f"{path}: expected the package zarr to read it: pip install zarr"
        ) from None
    with reading(path, "the store"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on formats of the store, which concern its writers
        data = read(path)
    if part == "raw" and data.raw is not None:
        return data.raw.to_adata()
    name = part.removeprefix("layers/")
    if part and part != "X":
        if name not in data.layers:
            found = ", ".join(f"layers/{key}" for key in data.layers) or "X alone"
            raise InputError(f"{path}: expected {part}; found {found}")
        data.X = data.layers[name]
        data.uns = {"units": "counts"} if "count" in name else {}
    return data
