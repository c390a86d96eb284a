"""Samples of one file that are in another too: by their id, or as a near-identical row."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from m1pipe.data.depth import in_units
from m1pipe.data.matrix import Matrix
from m1pipe.data.names import match_genes

N_DIRECTIONS = 16
NEAR_IDENTICAL = 1e-3  # of the median distance from the centre
SMALLEST_OVERLAP = 50


@dataclass(frozen=True, eq=False)
class Copies:
    """Rows of a file whose samples are in another.

    Attributes
    ----------
    by_id, by_row : ndarray of int64
        Rows that share an id with the other file, and further ones that are near-identical to a
        row of it.
    partner : dict of int to str
        For a row of `by_row` the sample of the other file that it resembles.
    n_genes : int
        Shared genes that rows were compared on; 0 where only ids could be compared.
    """

    by_id: np.ndarray
    by_row: np.ndarray
    partner: dict[int, str]
    n_genes: int

    @property
    def rows(self) -> np.ndarray:
        """All of them, ascending."""
        return np.union1d(self.by_id, self.by_row)


def row_signatures(X: ArrayLike) -> NDArray[np.float64]:
    """Short signatures that only near-identical rows share: 16 random projections.

    Blocks of rows may be passed one after the other; the directions depend on the number of
    columns only.

    Parameters
    ----------
    X : array_like, shape (n_samples, n_features)

    Returns
    -------
    ndarray, shape (n_samples, 16)
    """
    X = np.asarray(X, dtype=np.float32)
    directions = np.random.default_rng(0).normal(size=(X.shape[1], N_DIRECTIONS))
    return (X @ directions.astype(np.float32)).astype(np.float64)


def row_digests(X: ArrayLike) -> list[str]:
    """Text that two rows share only if they are equal to the last bit, NaN included.

    Parameters
    ----------
    X : array_like, shape (n_samples, n_features)
        Taken as float32.
    """
    rows = np.ascontiguousarray(X, dtype=np.float32)
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows]


def near_radius(signatures: np.ndarray) -> float:
    """Distance of signatures within which rows count as near-identical.

    Parameters
    ----------
    signatures : ndarray, shape (n_samples, 16)
        From `row_signatures`.
    """
    distance = np.linalg.norm(signatures - np.median(signatures, axis=0), axis=1)
    return max(NEAR_IDENTICAL * float(np.median(distance)), 1e-12)


def find_copies(matrix: Matrix, other: Matrix, *, rows: np.ndarray | None = None) -> Copies:
    """Rows of `matrix` whose samples are in `other` too.

    Parameters
    ----------
    matrix, other : Matrix
        Rows are compared on the genes that both have, in one unit, to which counts are brought;
        where there is no such unit, or with fewer than 50 shared genes, only ids are.
    rows : ndarray of int, shape (n_rows,), optional
        Rows of `matrix` that are looked at. Left out: all.
    """
    rows = np.arange(matrix.n_samples) if rows is None else np.asarray(rows, dtype=np.int64)
    known = np.isin(matrix.samples[rows].astype(str), other.samples.astype(str))
    match = match_genes(
        other.genes.tolist(),
        matrix.genes.tolist(),
        available_var=matrix.var,
        wanted_var=other.var,
    )
    matrix, other = _in_same_units(matrix, other), _in_same_units(other, matrix)
    theirs = np.flatnonzero(match.columns >= 0)
    none = Copies(rows[known], np.arange(0), {}, 0)
    if matrix.units != other.units or theirs.size < SMALLEST_OVERLAP or known.all():
        return none
    ours = file_signatures(matrix, rows[~known], match.columns[theirs])
    reference = file_signatures(other, np.arange(other.n_samples), theirs)
    gap, near = cKDTree(reference).query(ours, distance_upper_bound=near_radius(reference))
    found = np.isfinite(gap)
    by_row = rows[~known][found]
    names = other.samples[near[found]]
    partner = {int(row): str(name) for row, name in zip(by_row, names, strict=True)}
    return Copies(rows[known], by_row, partner, int(theirs.size))


def _in_same_units(matrix: Matrix, other: Matrix) -> Matrix:
    """Counts in the units of the other file, where these are made from counts; else as they are."""
    units = other.units
    made = units.is_by_total and units.target_sum is not None
    return in_units(matrix, units) if matrix.units.is_counts and made else matrix


def file_signatures(
    matrix: Matrix, rows: np.ndarray, columns: np.ndarray | None = None
) -> NDArray[np.float64]:
    """As `row_signatures`, of rows that are read block by block; a missing level counts as 0.

    Parameters
    ----------
    matrix : Matrix
    rows : ndarray of int, shape (n_rows,)
    columns : ndarray of int, shape (n_columns,), optional
        Genes that are looked at. Left out: all.
    """
    parts = [
        row_signatures(np.nan_to_num(matrix.take(block, columns)))
        for block in np.array_split(rows, max(1, rows.size // 1024))
    ]
    return np.concatenate(parts)
