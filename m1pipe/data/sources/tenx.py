"""10x Genomics: counts of cells in Cell Ranger's HDF5, or in a folder with a Matrix Market file."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from m1pipe.data.hdf5 import read_names, read_whole
from m1pipe.data.stored import Stored, csr_reader
from m1pipe.data.units import Units
from m1pipe.errors import InputError

GENE_EXPRESSION = "Gene Expression"
_PARTS = {"data", "indices", "indptr", "shape", "barcodes"}


def is_tenx(handle: h5py.File) -> bool:
    """Whether an open HDF5 file is laid out as Cell Ranger's are, of version 2 or 3."""
    return bool(_matrices(handle))


def tenx_stored(handle: h5py.File, path: Path) -> Stored:
    """Rows of Cell Ranger's HDF5: features x barcodes by columns, which is cells by rows.

    Features of version 3 that are no gene expression (antibodies, guides) are left out. Genes go
    by their id, with the name in `var["symbol"]`.

    Raises
    ------
    InputError
        If the file holds several genomes apart (version 2), no gene expression, or its parts do
        not fit together.
    """
    groups = _matrices(handle)
    if len(groups) > 1:
        raise InputError(
            f"{path}: expected counts of one genome; found {', '.join(groups)}: give a file with "
            "one of them"
        )
    group = handle[groups[0]]
    ids, names, kept = _features(group, path)
    barcodes = read_names(group["barcodes"])
    shape = read_whole(group["shape"], kinds="iu").tolist()
    if len(shape) != 2:
        raise InputError(f"{path}: {groups[0]}/shape: expected two whole numbers; found {shape}")
    n_features, n_cells = shape
    if (n_features, n_cells) != (len(ids), len(barcodes)):
        raise InputError(
            f"{path}: {groups[0]}/shape: expected {len(ids)} features x {len(barcodes)} barcodes "
            f"by the names; found {n_features} x {n_cells}"
        )
    obs = pd.DataFrame(index=pd.Index(barcodes, dtype=object))
    var = pd.DataFrame({"symbol": names[kept]}, index=pd.Index(ids[kept], dtype=object))
    reader = csr_reader(group, n_cells, n_features, None if len(kept) == n_features else kept)
    return Stored("10x_h5", reader, obs, var, Units("counts"))


def _matrices(handle: h5py.File) -> list[str]:
    """Groups of the file that hold a sparse matrix of 10x."""
    return [
        name
        for name, item in handle.items()
        if isinstance(item, h5py.Group)
        and _PARTS <= set(item)
        and {"features", "genes"} & set(item)
    ]


def _features(group: h5py.Group, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and names of the features, and which of them are genes.

    Files may leave names out, and where all features are genes, their kinds.
    """
    if "features" not in group:
        ids = read_names(group["genes"])
        names = read_names(group["gene_names"]) if "gene_names" in group else ids
        _refuse_other_lengths(path, ids, {"gene_names": names})
        return ids, names, np.arange(len(ids))
    features = group["features"]
    key = "id" if "id" in features else "name"
    if not isinstance(features, h5py.Group) or key not in features:
        raise InputError(f"{path}: {group.name}/features: expected ids of the features; found none")
    ids = read_names(features[key])
    names = read_names(features["name"]) if "name" in features else ids
    if "feature_type" not in features:
        _refuse_other_lengths(path, ids, {"name": names})
        return ids, names, np.arange(len(ids))
    kinds = read_names(features["feature_type"])
    _refuse_other_lengths(path, ids, {"name": names, "feature_type": kinds})
    return ids, names, gene_rows(kinds, f"{path}: {group.name}/features")


def _refuse_other_lengths(path: Path, ids: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    for part, values in parts.items():
        if len(values) != len(ids):
            raise InputError(
                f"{path}: {part}: expected {len(ids):,} entries, as many as ids; found "
                f"{len(values):,}"
            )


def gene_rows(kinds: np.ndarray, where: str) -> np.ndarray:
    """Positions of the features that are gene expression.

    Parameters
    ----------
    kinds : ndarray of str, shape (n_features,)
    where : str
        Named in messages.

    Returns
    -------
    ndarray of int64, shape (n_genes,)

    Raises
    ------
    InputError
        If there is none, naming the kinds found.
    """
    kept = np.flatnonzero(kinds == GENE_EXPRESSION)
    if not len(kept):
        found = ", ".join(sorted(set(kinds))[:4])
        raise InputError(f"{where}: expected features of {GENE_EXPRESSION!r}; found {found}")
    return kept
