"""Real and synthetic samples as figures take them: the same genes, one scale, not too many."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.data.labels import listed_columns
from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.units import Units, log_units
from m1pipe.errors import InputError, M1Warning, did_you_mean
from m1pipe.io.reader import open_matrix
from m1pipe.synthesis.quality_data import common_genes, common_units, to_scale

MOST_SAMPLES = 1000
MIN_COVERAGE = 0.8
_MOST_CLASSES = 200
_FEW_NUMBERS = 12


@dataclass(frozen=True, eq=False)
class Pair:
    """Real and synthetic samples over the same genes.

    Attributes
    ----------
    real, synthetic : ndarray of float32, shape (n_samples, n_genes)
        Logarithms, where the units have one.
    genes : ndarray of str, shape (n_genes,)
    unit : str
        Of the values, for an axis.
    drawn : str
        How many samples there are of how many, for a title; "" where all are there.
    labels : (ndarray of str, ndarray of str) or None
        Class of every sample of both; "" where it has none.
    """

    real: np.ndarray
    synthetic: np.ndarray
    genes: np.ndarray
    unit: str
    drawn: str
    labels: tuple[np.ndarray, np.ndarray] | None = None


def load_pair(
    real: Any,
    synthetic: Any,
    *,
    label: str | None = None,
    max_samples: int = MOST_SAMPLES,
    min_coverage: float = MIN_COVERAGE,
    aliases: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Pair:
    """Read real and synthetic samples, draw some of many, match their genes.

    Parameters
    ----------
    real, synthetic : path, AnnData, DataFrame, (array, names) or Matrix
    label : str, optional
        Column of classes that both have.
    max_samples : int
        Most samples a side; more are drawn from.
    min_coverage : float
        Smallest share of the real samples' genes that the synthetic ones must have.
    aliases : path, optional
        Table of other names of genes.
    seed : int
        Of the draw.

    Raises
    ------
    InputError
        If units, genes or the label do not fit, or a value is not finite.
    """
    sources = {"real": real, "synthetic": synthetic}
    with ExitStack() as stack:
        sets: dict[str, Matrix] = {}
        for role, source in sources.items():
            sets[role] = stack.enter_context(opened(source, aliases=aliases))
        units = common_units(sets)
        columns, kept, _ = common_genes(sets, min_coverage)
        rows = {role: draw_rows(m.n_samples, max_samples, seed) for role, m in sets.items()}
        values = {role: read_rows(m, rows[role], columns[role]) for role, m in sets.items()}
        _, is_log = to_scale(values, units)
        labels = None
        if label is not None:
            labels = tuple(_classes(sets[role], rows[role], label) for role in sets)
        return Pair(
            real=values["real"],
            synthetic=values["synthetic"],
            genes=sets["real"].genes[kept],
            unit=_unit(units, is_log),
            drawn=_drawn(sets, rows, seed),
            labels=labels,  # type: ignore[arg-type]
        )


@contextmanager
def opened(source: Any, *, aliases: str | os.PathLike[str] | None = None) -> Iterator[Matrix]:
    """A matrix of any form; a file is closed at the end, what was open already stays open."""
    matrix = open_matrix(source, aliases=aliases)
    try:
        yield matrix
    finally:
        if isinstance(source, str | os.PathLike):
            matrix.close()


def draw_rows(n: int, most: int, seed: int) -> np.ndarray:
    """Rows of n, ascending: all, or a draw of as many as there may be."""
    if n <= most:
        return np.arange(n)
    return np.sort(seeds.rng(seed, seeds.SHOWN_ROWS).permutation(n)[:most])


def read_rows(matrix: Matrix, rows: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """Rows of a matrix, all values finite.

    Parameters
    ----------
    matrix : Matrix
    rows : ndarray of int, shape (n_rows,)
    columns : ndarray of int, shape (n_columns,), optional

    Returns
    -------
    ndarray of float32, shape (n_rows, n_genes or n_columns)
    """
    if not rows.size:
        raise InputError(f"{matrix.path or 'matrix'}: expected samples; found none")
    X = matrix.take(rows, columns)
    check_finite(X, matrix, rows, columns=columns)
    return X


def column_of(matrix: Matrix, label: str) -> pd.Series:
    """A column of obs.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if label not in matrix.obs.columns:
        raise InputError(
            f"label: expected a column of {matrix.path or 'the samples'}: "
            f"{listed_columns(matrix.obs)}; found {label!r}{did_you_mean(label, matrix.obs)}"
        )
    return matrix.obs[label]


def is_number(column: pd.Series) -> bool:
    """Whether values are shades rather than classes: numbers, and more than a few of them."""
    return (
        pd.api.types.is_numeric_dtype(column)
        and not pd.api.types.is_bool_dtype(column)
        and column.nunique() > _FEW_NUMBERS
    )


def as_classes(column: pd.Series, label: str) -> np.ndarray:
    """Values as text, "" where missing.

    Raises
    ------
    InputError
        If they are too many to be classes.
    """
    text = column.astype(object).where(column.notna(), "").map(str).to_numpy(dtype=object)
    n_classes = len(set(text) - {""})
    if n_classes > _MOST_CLASSES:
        raise InputError(
            f"label: expected at most {_MOST_CLASSES} classes; found {n_classes:,} in {label!r}"
        )
    return text


def choose_genes(genes: np.ndarray, wanted: Sequence[str]) -> np.ndarray:
    """Places of genes by their names.

    Parameters
    ----------
    genes : ndarray of str, shape (n_genes,)
    wanted : sequence of str

    Returns
    -------
    ndarray of int64, shape (n_wanted,)

    Raises
    ------
    InputError
        If one is not there.
    """
    place = {name: i for i, name in enumerate(genes)}
    missing = [name for name in wanted if name not in place]
    if missing:
        raise InputError(
            f"genes: expected names such as {', '.join(genes[:3])}; found {missing[0]!r}"
        )
    return np.array([place[name] for name in wanted], dtype=np.int64)


def _classes(matrix: Matrix, rows: np.ndarray, label: str) -> np.ndarray:
    column = column_of(matrix, label)
    if is_number(column):
        text = f"label: {label!r} is a number: taken as classes, one for each of its values"
        warnings.warn(text, M1Warning, stacklevel=2)
    return as_classes(column, label)[rows]


def _unit(units: Units, is_log: bool) -> str:
    if is_log and not units.is_log:
        return f"log2({units.label} + 1)" if units.is_counts else log_units(units).label
    return units.label


def _drawn(sets: dict[str, Matrix], rows: dict[str, np.ndarray], seed: int) -> str:
    parts = [
        f"{len(rows[role]):,} of {matrix.n_samples:,} {role}"
        for role, matrix in sets.items()
        if len(rows[role]) < matrix.n_samples
    ]
    return f"{' and '.join(parts)} samples drawn, seed {seed}" if parts else ""
