"""Sequencing depth: total counts of samples, and counts thinned to the depth of another file.

Thinning keeps each count of a sample with the same probability, so that the total comes to the
depth of the same rank in the other file: what the sample would show had it been sequenced so. A
sample's noise depends on the seed and its name alone: whenever and in whatever order rows are read,
they are the same.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.data.matrix import Matrix
from m1pipe.data.units import Units, convert_units, to_linear
from m1pipe.errors import InputError, counted

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
            f"{counted(self.n_genes, 'shared gene')}"
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
    return np.asarray(totals * np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def depth_ratio(matrix: Matrix, other: Matrix) -> DepthRatio | None:
    """How much deeper the samples of one file are than those of another.

    Parameters
    ----------
    matrix, other : Matrix
        Of at most `MOST_ROWS` random samples each.

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
    rng = seeds.rng(0, seeds.DEPTH_RATIO)
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
    match = matrix.match(other.genes, other.var, other.aliases)
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


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class Thinning:
    """What is kept of the counts of a file's samples.

    Attributes
    ----------
    kept : ndarray of float64, shape (n_samples,)
        Probability with which a count is kept; 1 for a sample that is left as it is.
    totals : ndarray of float64, shape (n_samples,)
        Counts of each sample that remain, over all genes; NaN for samples that are not used.
    rows : ndarray of int, shape (n_rows,)
        The samples that are used, without those that have no count left.
    seed : int
    record : dict
        What is recorded: `file`, `n_genes` (shared), `n_thinned`, `n_left` (not deeper than
        that of their rank), `n_empty` (without counts, kept out), `seed`, and the `QUANTILES` of
        depths over the shared genes `depth_before`, `depth_after`, `depth_file`.
    """

    kept: np.ndarray
    totals: np.ndarray
    rows: np.ndarray
    seed: int
    record: dict[str, Any]

    def __str__(self) -> str:
        f = self.record
        before, after, file = (f[f"depth_{which}"][2] for which in ("before", "after", "file"))
        n, left, empty = (f[f"n_{which}"] for which in ("thinned", "left", "empty"))
        told = f"; {left:,} no deeper" if left else ""
        told += f"; {empty:,} without a count left, not used" if empty else ""
        return (
            f"{n:,} of {n + left:,} samples thinned to the depths of {f['file']}: median "
            f"{before:,.0f} to {after:,.0f} counts ({file:,.0f} there){told}"
        )


def plan_thinning(matrix: Matrix, other: Matrix, rows: np.ndarray, *, seed: int) -> Thinning:
    """Bring the depths of samples to those of another file, over the genes that both have.

    The deepest samples are thinned to the depths of its deepest, the shallowest to those of its
    shallowest: the two distributions come to be the same as far as taking counts away can do it.

    Parameters
    ----------
    matrix : Matrix
        Counts.
    other : Matrix
        Counts, or levels whose total counts its obs tells; nothing else of obs is looked at.
    rows : ndarray of int, shape (n_rows,)
        Samples of `matrix` that are used.
    seed : int

    Raises
    ------
    InputError
        If the one is not of counts or the depth of the other is not known, they share no gene, or
        no sample has a count left.
    """
    shared, wanted = _depths_of(other, matrix)
    where = str(matrix.path or "data")
    before, _ = _sums(matrix, shared, rows)
    goal = _at_same_ranks(before, wanted, seed)
    kept, totals = np.ones(matrix.n_samples), np.full(matrix.n_samples, np.nan)
    kept[rows] = np.divide(goal, before, out=np.ones(rows.size), where=before > goal)
    after, start = np.empty(rows.size), 0
    for part in matrix.bands(rows):
        X = matrix.take(part)
        thin_rows(X, kept[part], matrix.samples[part], seed, where=where)
        totals[part] = X.sum(axis=1, dtype=np.float64)
        after[start : start + part.size] = X[:, shared].sum(axis=1, dtype=np.float64)
        start += part.size
    left = totals[rows] > 0
    if not left.any():
        raise InputError(f"{where}: --thin-to: expected counts to be left; none are at that depth")
    record = {
        "file": "data" if other.path is None else other.path.name,
        "n_genes": int(shared.size),
        "n_thinned": int((kept[rows] < 1).sum()),
        "n_left": int((kept[rows] == 1).sum()),
        "n_empty": int((~left).sum()),
        "seed": seed,
        "depth_before": _quantiles(before),
        "depth_after": _quantiles(after[left]),
        "depth_file": _quantiles(wanted),
    }
    return Thinning(kept, totals, rows[left], seed, record)


def _at_same_ranks(before: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """For each depth the wanted one of the same rank; equal depths have theirs at random."""
    chance = seeds.rng(seed, seeds.THINNED_DEPTHS).permutation(before.size)
    levels = (np.arange(before.size) + 0.5) / before.size
    found = np.empty(before.size)
    found[np.lexsort((chance, before))] = np.quantile(wanted, levels, method="inverted_cdf")
    return found


def _depths_of(other: Matrix, matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Columns of `matrix` that `other` has too, and the depths of the latter's samples there."""
    where, file = (str(one.path or "data") for one in (matrix, other))
    if not matrix.units.is_counts:
        raise InputError(
            f"{where}: --thin-to: expected counts; found {matrix.units}: convert the raw counts "
            "with --units counts, and let train normalise them (--normalize total --log2p1)"
        )
    shared, there = shared_genes(matrix, other)
    wanted = depths(other, there) if there.size else None
    if wanted is None or not (wanted > 0).any():
        found = f"{other.units} without total_counts in obs" if there.size else "no shared gene"
        raise InputError(
            f"{file}: --thin-to: expected counts, or levels made from counts by m1pipe convert "
            f"--normalize total, of the genes of {where}; found {found}"
        )
    return shared, wanted[wanted > 0]


def thin_rows(
    X: np.ndarray, kept: np.ndarray, samples: np.ndarray, seed: int, *, where: str
) -> None:
    """Keep each count with its sample's probability, in place.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_genes)
        Counts.
    kept : ndarray of float64, shape (n_samples,)
        Samples at 1 are left alone.
    samples : ndarray of str, shape (n_samples,)
        Names, on which the noise depends.
    seed : int
    where : str
        The file, for the message.

    Raises
    ------
    InputError
        If a value is no count.
    """
    for row, share, name in zip(X, kept, samples, strict=True):
        if share >= 1:
            continue
        some = np.flatnonzero(row)
        counts = row[some]
        if not ((counts > 0) & (counts == np.floor(counts)) & (counts < np.inf)).all():
            raise InputError(
                f"{where}: --thin-to: expected whole counts of at least 0; found other values in "
                f"sample {name!r}: give raw counts"
            )
        digest = hashlib.blake2b(str(name).encode(), digest_size=8).digest()
        rng = seeds.rng(seed, seeds.THINNED_COUNTS, int.from_bytes(digest, "little"))
        row[some] = rng.binomial(counts.astype(np.int64), share)


def thinned(
    matrix: Matrix, kept: np.ndarray, seed: int, totals: np.ndarray | None = None
) -> Matrix:
    """The same file with thinned counts, made when rows are read.

    Parameters
    ----------
    matrix : Matrix
        Counts.
    kept : ndarray of float64, shape (n_samples,)
        As of `Thinning`.
    seed : int
    totals : ndarray of float64, shape (n_samples,), optional
        What is left of each sample; stands in obs as `total_counts`.
    """
    where, samples = str(matrix.path or "data"), matrix.samples

    def thin(start: int, X: np.ndarray) -> None:
        here = slice(start, start + len(X))
        thin_rows(X, kept[here], samples[here], seed, where=where)

    return matrix.changed(thin, obs=_with_totals(matrix, totals), units=matrix.units)


def in_units(matrix: Matrix, units: Units, totals: np.ndarray | None = None) -> Matrix:
    """The same file in other units, converted when rows are read.

    Parameters
    ----------
    matrix : Matrix
        Samples are normalised over all of its genes; one without counts has no levels, but NaN.
    units : Units
    totals : ndarray of float64, shape (n_samples,), optional
        Counts of each sample; stand in obs as `total_counts`.
    """
    if matrix.units == units or "unknown" in (matrix.units.name, units.name):
        return matrix
    have = matrix.units
    convert_units(np.ones((1, 1), dtype=np.float32), have, units)

    def convert(start: int, X: np.ndarray) -> None:
        known = X.sum(axis=1) > 0 if have.is_counts else np.ones(len(X), dtype=bool)
        X[known] = convert_units(X[known], have, units)
        X[~known] = np.nan

    return matrix.changed(convert, obs=_with_totals(matrix, totals), units=units)


def _with_totals(matrix: Matrix, totals: np.ndarray | None) -> pd.DataFrame:
    return matrix.obs if totals is None else matrix.obs.assign(total_counts=totals)


def _quantiles(values: np.ndarray) -> list[float]:
    return [float(q) for q in np.quantile(values, QUANTILES)]
