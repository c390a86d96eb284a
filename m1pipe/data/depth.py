"""How deeply samples were sequenced: their total counts over given genes, where these are known."""

from dataclasses import dataclass

import numpy as np

from m1pipe.data.matrix import Matrix
from m1pipe.data.names import match_genes
from m1pipe.data.units import to_linear

TOTALS = ("total_counts", "n_counts")  # of obs, before normalisation
APART = 2.0
MOST_ROWS = 20_000


@dataclass(frozen=True)
class DepthRatio:
    """Depths of two files over the genes that both have.

    Attributes
    ----------
    here, there : float
        Median total count of a sample.
    n_genes : int
        Shared genes.
    """

    here: float
    there: float
    n_genes: int

    @property
    def ratio(self) -> float:
        """Times that samples here are as deep as there."""
        return self.here / self.there

    @property
    def apart(self) -> bool:
        """Whether they differ by a factor of `APART` or more."""
        return not 1 / APART < self.ratio < APART

    def __str__(self) -> str:
        return (
            f"median {self.here:,.0f} counts a sample here, {self.there:,.0f} there, over "
            f"{self.n_genes:,} shared genes"
        )


def depths(
    matrix: Matrix, columns: np.ndarray | None = None, rows: np.ndarray | None = None
) -> np.ndarray | None:
    """Total counts of samples over some genes.

    Parameters
    ----------
    matrix : Matrix
        Counts; or levels scaled to a common total, whose total counts obs tells: of these the
        genes have their share.
    columns : ndarray of int, shape (n_columns,), optional
        Genes. Left out: all.
    rows : ndarray of int, shape (n_samples,), optional
        Samples. Left out: all.

    Returns
    -------
    ndarray of float64, shape (n_samples,), or None
        None where the depth is not known.
    """
    rows = np.arange(matrix.n_samples) if rows is None else rows
    units = matrix.units
    if units.is_counts:
        return _sums(matrix, columns, rows)[0]
    known = [name for name in TOTALS if name in matrix.obs.columns]
    if not units.is_by_total or not known:
        return None
    totals = matrix.obs[known[0]].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
    if not (np.isfinite(totals) & (totals >= 0)).all():
        return None
    if columns is None or columns.size == matrix.n_genes:
        return totals
    part, whole = _sums(matrix, columns, rows)
    found: np.ndarray = totals * np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found


def depth_ratio(matrix: Matrix, other: Matrix, *, seed: int = 0) -> DepthRatio | None:
    """How much deeper the samples of one file are than those of another.

    Parameters
    ----------
    matrix, other : Matrix
        Of at most `MOST_ROWS` samples each.
    seed : int
        Of which, where there are more.

    Returns
    -------
    DepthRatio or None
        None where the depth of either is not known, or they share no gene.

    Raises
    ------
    InputError
        If genes cannot be matched.
    """
    here, there = shared_genes(matrix, other)
    if not here.size:
        return None
    rng = np.random.default_rng([seed, 72])
    medians = []
    for one, columns in ((matrix, here), (other, there)):
        rows = np.arange(one.n_samples)
        if rows.size > MOST_ROWS:
            rows = np.sort(rng.choice(rows, MOST_ROWS, replace=False))
        found = depths(one, columns, rows)
        if found is None or not np.median(found) > 0:
            return None
        medians.append(float(np.median(found)))
    return DepthRatio(medians[0], medians[1], here.size)


def shared_genes(matrix: Matrix, other: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the genes that two files share, in both, by name and by the aliases of both.

    Raises
    ------
    InputError
        If genes cannot be matched.
    """
    match = match_genes(
        other.genes.tolist(),
        matrix.genes.tolist(),
        available_var=matrix.var,
        wanted_var=other.var,
        aliases={**other.aliases, **matrix.aliases},
    )
    there = np.flatnonzero(match.columns >= 0)
    return match.columns[there], there


def _sums(
    matrix: Matrix, columns: np.ndarray | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of linear levels of each sample over some genes and over all, both (n_rows,)."""
    part, whole = np.empty(rows.size), np.empty(rows.size)
    start = 0
    for band in matrix.bands(rows):
        here = slice(start, start + band.size)
        start += band.size
        X = matrix.take(band)
        if matrix.units.is_log:
            X = to_linear(X.astype(np.float64), matrix.units)
        whole[here] = np.nansum(X, axis=1, dtype=np.float64)
        some = X if columns is None else X[:, columns]
        part[here] = np.nansum(some, axis=1, dtype=np.float64)
    return part, whole
