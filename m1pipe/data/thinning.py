"""Counts thinned to the depth of another file: what its samples would show had they been these.

Each count of a sample is kept with the same probability, so that its total comes to a depth drawn
from the other file. A sample's noise depends on the seed and its name alone: whenever and in
whatever order rows are read, they are the same.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.data.depth import depths, shared_genes
from m1pipe.data.matrix import Matrix
from m1pipe.data.units import Units, convert_units
from m1pipe.errors import InputError

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
    facts : dict
        For the record: `file`, `n_genes` (shared), `n_thinned`, `n_left` (not deeper than what
        was drawn for them), `n_empty` (without counts, kept out), `seed`, and the `QUANTILES` of
        depths over the shared genes `depth_before`, `depth_after`, `depth_file`.
    """

    kept: np.ndarray
    totals: np.ndarray
    rows: np.ndarray
    seed: int
    facts: dict[str, Any]

    def __str__(self) -> str:
        f = self.facts
        before, after, file = (f[f"depth_{which}"][2] for which in ("before", "after", "file"))
        return (
            f"{f['n_thinned']:,} samples thinned to depths of {f['file']}: median {before:,.0f} to "
            f"{after:,.0f} counts ({file:,.0f} there) over {f['n_genes']:,} shared genes; "
            f"left as they are, being no deeper than what was drawn for them: {f['n_left']:,}; "
            f"kept out, without a count left: {f['n_empty']:,}"
        )


def plan_thinning(matrix: Matrix, other: Matrix, rows: np.ndarray, *, seed: int) -> Thinning:
    """Draw for each sample a depth of another file's, over the genes that both have.

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
    drawn = np.random.default_rng([seed, 71]).choice(wanted, rows.size)
    kept, totals = np.ones(matrix.n_samples), np.full(matrix.n_samples, np.nan)
    before, after, start = np.empty(rows.size), np.empty(rows.size), 0
    for part in matrix.bands(rows):
        here = slice(start, start + part.size)
        X = matrix.take(part)
        own = X[:, shared].sum(axis=1, dtype=np.float64)
        share = np.divide(drawn[here], own, out=np.ones(part.size), where=own > 0)
        kept[part] = np.minimum(share, 1.0)
        thin_rows(X, kept[part], matrix.samples[part], seed, where=where)
        totals[part] = X.sum(axis=1, dtype=np.float64)
        before[here], after[here] = own, X[:, shared].sum(axis=1, dtype=np.float64)
        start += part.size
    left = totals[rows] > 0
    if not left.any():
        raise InputError(f"{where}: thin-to: expected counts to be left; none are at that depth")
    facts = {
        "file": other.path.name if other.path is not None else "data",
        "n_genes": int(shared.size),
        "n_thinned": int((kept[rows] < 1).sum()),
        "n_left": int((kept[rows] == 1).sum()),
        "n_empty": int((~left).sum()),
        "seed": seed,
        "depth_before": _quantiles(before),
        "depth_after": _quantiles(after[left]),
        "depth_file": _quantiles(wanted),
    }
    return Thinning(kept, totals, rows[left], seed, facts)


def _depths_of(other: Matrix, matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Columns of `matrix` that `other` has too, and the depths of the latter's samples there."""
    where, file = (str(one.path or "data") for one in (matrix, other))
    if not matrix.units.is_counts:
        raise InputError(
            f"{where}: thin-to: expected counts; found {matrix.units}: convert the raw counts with "
            "--units counts, and let train normalise them (--normalize total --log2p1)"
        )
    shared, there = shared_genes(matrix, other)
    wanted = depths(other, there) if there.size else None
    if wanted is None or not (wanted > 0).any():
        found = f"{other.units} without total_counts in obs" if there.size else "no shared gene"
        raise InputError(
            f"{file}: thin-to: expected counts, or levels made from counts by m1pipe convert "
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
                f"{where}: thin-to: expected whole counts of at least 0; found other values in "
                f"sample {name!r}: give raw counts"
            )
        digest = hashlib.blake2b(str(name).encode(), digest_size=8).digest()
        rng = np.random.default_rng([seed, 73, int.from_bytes(digest, "little")])
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
