"""ARCHS4 2.x: counts of genes x samples in HDF5, with GEO's descriptions of the samples."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import pandas as pd

from m1pipe.data.matrix import Matrix
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io.hdf5 import read_columns, read_names
from m1pipe.io.rows import check_dense, transposed_rows

# Names of genes and samples by version of the file, the most specific first.
_GENE_KEYS = (
    *("ensembl_gene_id", "ensembl_gene", "ensembl_id", "ensembl_transcript_id", "gene_id"),
    *("symbol", "gene_symbol", "genes"),
)
_SYMBOL_KEYS = ("symbol", "gene_symbol")
_SAMPLE_KEYS = ("geo_accession", "sample", "sample_id", "id")
SINGLE_CELL = "singlecellprobability"


def is_archs4(handle: h5py.File) -> bool:
    """Whether an open HDF5 file is laid out as ARCHS4's are."""
    return "data/expression" in handle and "meta" in handle


def read_archs4(handle: h5py.File, path: Path) -> Matrix:
    """Rows of an ARCHS4 file, which holds genes as rows.

    Genes go by the first of their keys whose values are all there and all different, Ensembl ids
    before symbols; the other keys become columns of `var`, the symbol always as `symbol`. All of
    `meta/samples` becomes `obs`.

    Raises
    ------
    InputError
        If the file is of version 1, or its parts do not fit together.
    """
    genes = _group(handle, ("meta/genes", "meta/transcripts"), path)
    samples = _group(handle, ("meta/samples",), path)
    X = handle["data/expression"]
    check_dense(X, f"{path}: data/expression")
    obs = _annotations(samples, _first(samples, _SAMPLE_KEYS, path))
    if SINGLE_CELL in obs and not pd.api.types.is_numeric_dtype(obs[SINGLE_CELL]):
        text = obs[SINGLE_CELL].astype(str)
        obs[SINGLE_CELL] = pd.to_numeric(text, errors="coerce")
    var = _annotations(genes, _gene_key(genes, path))
    if X.shape != (len(var), len(obs)):
        raise InputError(
            f"{path}: data/expression: expected {len(var)} genes x {len(obs)} samples by its "
            f"names; found {X.shape[0]} x {X.shape[1]}"
        )
    return transposed_rows("archs4", X, obs, var, Units("counts"))


def _group(handle: h5py.File, names: Sequence[str], path: Path) -> h5py.Group:
    for name in names:
        if isinstance(handle.get(name), h5py.Group):
            return handle[name]
    found = ", ".join(sorted(handle["meta"])[:6]) if "meta" in handle else "none"
    raise InputError(
        f"{path}: expected the groups meta/genes and meta/samples of ARCHS4 2; found {found} in "
        "meta: download a file of version 2"
    )


def _first(group: h5py.Group, keys: Sequence[str], path: Path) -> str:
    for key in keys:
        if key in group:
            return key
    raise InputError(
        f"{path}: {group.name}: expected one of {', '.join(keys)}; found "
        f"{', '.join(sorted(group)[:6]) or 'nothing'}"
    )


def _gene_key(group: h5py.Group, path: Path) -> str:
    """The key that names every gene differently; failing that the first there is."""
    for key in _GENE_KEYS:
        if key in group:
            names = pd.Index(read_names(group[key]))
            if names.is_unique and not (names == "").any():
                return key
    return _first(group, _GENE_KEYS, path)


def _annotations(group: h5py.Group, key: str) -> pd.DataFrame:
    """Columns of a group, indexed by one of them; symbols under one name."""
    names = read_names(group[key])
    frame = read_columns(group, len(names)).set_axis(pd.Index(names, dtype=object))
    for symbol in _SYMBOL_KEYS:
        if symbol in frame and symbol != key:
            frame = frame.rename(columns={symbol: "symbol"})
    return frame.drop(columns=key)
