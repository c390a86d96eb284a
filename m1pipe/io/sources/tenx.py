"""10x Genomics: counts of cells in Cell Ranger's HDF5, or in a folder with a Matrix Market file."""

import itertools
import mmap
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import pandas as pd

from m1pipe.data.matrix import Matrix
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io.conversion.loaded import Loaded, row_blocks
from m1pipe.io.hdf5 import as_text, read_names, read_whole
from m1pipe.io.rows import csr_reader
from m1pipe.io.text.lines import open_chunks, open_lines, whole_lines

GENE_EXPRESSION = "Gene Expression"
_PARTS = {"data", "indices", "indptr", "shape", "barcodes"}


def is_tenx(handle: h5py.File) -> bool:
    """Whether an open HDF5 file is laid out as Cell Ranger's are, of version 2 or 3."""
    return bool(_matrices(handle))


def read_tenx(handle: h5py.File, path: Path) -> Matrix:
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
    return Matrix(reader, obs, var, Units("counts"), layout="10x_h5")


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
    features, key, other = group, "genes", "gene_names"
    if "features" in group:
        features, other = group["features"], "name"
        key = "id" if "id" in features else "name"
    if not isinstance(features, h5py.Group) or key not in features:
        raise InputError(f"{path}: {group.name}/features: expected ids of the features; found none")
    ids = read_names(features[key])
    parts = {p: read_names(features[p]) for p in (other, "feature_type") if p in features}
    for part, values in parts.items():
        if len(values) != len(ids):
            raise InputError(
                f"{path}: {part}: expected {len(ids):,} entries, as many as ids; found "
                f"{len(values):,}"
            )
    kept = np.arange(len(ids))
    if "feature_type" in parts:
        kept = gene_rows(parts["feature_type"], f"{path}: {group.name}/features")
    return ids, parts.get(other, ids), kept


def gene_rows(kinds: np.ndarray, where: str) -> np.ndarray:
    """Positions of the features that are gene expression, of kinds of shape (n_features,).

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


MOST_COMMENTS = 1000
_BANNER = b"%%MatrixMarket matrix coordinate"


def load_folder(folder: Path, raw: BinaryIO) -> Loaded:
    """Spread the entries of a 10x folder over `raw`, a dense row a cell.

    Entries may come in any order. Features that are no gene expression are left out. Genes go by
    their id, with the name in `var["symbol"]`.

    Raises
    ------
    InputError
        If a file of the three is missing, their sizes differ, an entry is no whole position and
        number, stands twice, or lies outside, or the disk is too full.
    """
    matrix = _find(folder, "matrix.mtx")
    named = _find(folder, "features.tsv", "genes.tsv"), _find(folder, "barcodes.tsv")
    with open_chunks(matrix) as chunks:
        pieces = whole_lines(chunks)
        sizes, rest, line = _head(pieces, matrix)
        features, barcodes = (_fields(path, n) for path, n in zip(named, sizes[:2], strict=True))
        n_entries = sizes[2]
        shape = (len(features), len(barcodes))
        if sizes[:2] != shape:
            raise InputError(
                f"{matrix}: line {line}: expected {shape[0]} features x {shape[1]} barcodes by the "
                f"names beside it; found {sizes[0]} x {sizes[1]}"
            )
        kept = np.arange(len(features))
        if len(features[0]) > 2:
            kinds = np.array([fields[2] for fields in features], dtype=object)
            kept = gene_rows(kinds, str(folder))
        column = np.full(len(features), -1)
        column[kept] = np.arange(len(kept))
        values = _zeros(raw, len(barcodes) * len(kept), folder)
        found = _scatter(rest, pieces, values, column, path=matrix, line=line)
    if found != n_entries:
        raise InputError(
            f"{matrix}: expected {n_entries} entries; found {found}: was it cut short?"
        )
    fields = (0, min(1, len(features[0]) - 1))  # ids alone are their own names
    ids, symbols = (np.array([f[i] for f in features], dtype=object)[kept] for i in fields)
    obs = pd.DataFrame(index=pd.Index([own[0] for own in barcodes], dtype=object))
    var = pd.DataFrame({"symbol": symbols}, index=pd.Index(ids, dtype=object))
    return Loaded(obs, var, row_blocks(raw, len(barcodes), len(kept)))


def _find(folder: Path, *names: str) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    inside = sorted(p.name for p in folder.iterdir())[:6] if folder.is_dir() else []
    others = ", or one of salmon, kallisto, RSEM (their files) or DEE2"
    raise InputError(
        f"{folder}: expected a folder of 10x with {' or '.join(names)} (.gz)"
        f"{others if names == ('matrix.mtx',) else ''}; found {', '.join(inside) or 'none'}"
    )


def _fields(path: Path, most: int) -> list[list[str]]:
    """Tab-separated fields of a file without a header, all lines as long as the first.

    No more lines are read than there are to be, and one.
    """
    with open_lines(path) as lines:
        some = itertools.islice((line for line in lines if line), most + 1)
        rows = [as_text(line).removeprefix("\ufeff").split("\t") for line in some]
    if not rows:
        raise InputError(f"{path}: expected names; found an empty file")
    of_features = path.name.startswith(("features", "genes"))
    for number, row in enumerate(rows, 1):
        if any("\0" in field for field in row):
            raise InputError(f"{path}: line {number}: expected names; found a NUL")
        if of_features and len(row) != len(rows[0]):
            raise InputError(
                f"{path}: line {number}: expected an id and a name, as many fields as in the "
                f"first line; found {len(row)}"
            )
    return rows


def _head(pieces: Iterator[bytes], path: Path) -> tuple[tuple[int, ...], bytes, int]:
    """Features, cells and entries; the text after the line of sizes; its number."""
    text = next(pieces, b"")
    if not text.startswith(_BANNER) or b"general" not in text.split(b"\n", 1)[0]:
        raise InputError(
            f"{path}: line 1: expected {_BANNER.decode()} ... general; found "
            f"{text[:40].splitlines()[0].decode('latin-1') if text.strip() else 'nothing'!r}"
        )
    line = 0
    while text.startswith(b"%"):
        text = text[text.find(b"\n") + 1 :] or next(pieces, b"")
        line += 1
        if line > MOST_COMMENTS:
            raise InputError(f"{path}: expected sizes after at most {MOST_COMMENTS:,} comments")
    sizes, _, rest = text.partition(b"\n")
    fields = sizes.split()
    if len(fields) != 3 or not all(f.isdigit() and len(f) < 16 for f in fields):
        raise InputError(f"{path}: line {line + 1}: expected three sizes; found {sizes[:40]!r}")
    return tuple(int(field) for field in fields), rest, line + 1


def _zeros(raw: BinaryIO, n_values: int, folder: Path) -> np.ndarray:
    """A raw file of zeros as a flat array; its space is taken at once."""
    n_bytes = 4 * n_values
    try:
        os.posix_fallocate(raw.fileno(), 0, n_bytes)
    except OSError as error:
        raise InputError(
            f"{folder}: no room for {n_bytes / 1e9:.1f} GB, a temporary copy beside the "
            f"destination: {error.strerror}"
        ) from None
    return np.frombuffer(mmap.mmap(raw.fileno(), n_bytes), dtype=np.float32)


def _scatter(
    rest: bytes,
    pieces: Iterator[bytes],
    values: np.ndarray,
    column: np.ndarray,
    *,
    path: Path,
    line: int,
) -> int:
    """Put all entries in their places; the number of them."""
    n_entries = 0
    n_genes = int(column.max()) + 1
    n_cells = len(values) // n_genes
    text: bytes | None = rest
    while text is not None:
        n_lines = text.count(b"\n") + bool(text and not text.endswith(b"\n"))
        where = f"{path}: lines {line + 1} to {line + n_lines}"
        feature, cell, counts = _entries(text, n_lines, where)
        inside = (feature >= 0) & (feature < len(column)) & (cell >= 0) & (cell < n_cells)
        if not inside.all():
            raise InputError(f"{where}: an entry lies outside the matrix")
        wanted = column[feature] >= 0
        places = cell[wanted] * n_genes + column[feature[wanted]]
        if len(np.unique(places)) != len(places) or values[places].any():
            raise InputError(f"{where}: expected every entry once; found one again")
        values[places] = counts[wanted]
        n_entries += len(feature)
        line += n_lines
        text = next(pieces, None)
    return n_entries


def _entries(text: bytes, n_lines: int, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Feature, cell, both from 0, and count of every line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how numpy says: not a number
            numbers = np.fromstring(text, sep=" ")
    except (DeprecationWarning, ValueError):
        numbers = np.empty(0)
    if len(numbers) != 3 * n_lines or (numbers[2::3] < 0).any():
        raise InputError(
            f"{where}: expected feature, barcode and a count of at least 0 on every line"
        )
    positions = numbers.reshape(-1, 3)[:, :2]
    if (positions != np.rint(positions)).any():
        raise InputError(f"{where}: expected whole positions")
    feature, cell = positions.astype(np.int64).T - 1
    return feature, cell, numbers[2::3].astype(np.float32)
