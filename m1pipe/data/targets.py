"""What a head predicts: levels paired to X by sample id, or a label column of X."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from m1pipe.console import log
from m1pipe.data.matrix import Matrix, check_finite, open_matrix
from m1pipe.data.names import pair_samples, refuse_duplicates
from m1pipe.data.units import Units
from m1pipe.errors import InputError

Kind = Literal["regression", "binary", "multiclass", "multilabel"]
MOST_WHOLE_NUMBERS = 20
GENE_COLUMN = "gene_id"
_BLOCK_BYTES = 2**25


@dataclass(frozen=True, eq=False)
class Targets:
    """Values to predict, one row a sample.

    Attributes
    ----------
    kind : {"regression", "binary", "multiclass", "multilabel"}
    values : ndarray
        float32, shape (n_samples, n_targets), for levels and for multilabel (0 or 1); int64 codes,
        shape (n_samples,), for classes.
    names : tuple of str
        Of the targets; for classes those of the classes, in the order of their codes. In the
        binary case the second one is the positive class.
    units : Units
        Of levels.
    genes : tuple of str or None
        Gene that each level (an isoform's) belongs to, where Y's annotations say so.
    """

    kind: Kind
    values: np.ndarray
    names: tuple[str, ...]
    units: Units = field(default_factory=Units)
    genes: tuple[str, ...] | None = None

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.values)

    @property
    def is_classes(self) -> bool:
        """Whether each sample belongs to exactly one class."""
        return self.kind in ("binary", "multiclass")

    @property
    def n_outputs(self) -> int:
        """Outputs that a head needs: one for two classes, otherwise one a name."""
        return 1 if self.kind == "binary" else len(self.names)

    def take(self, indices: np.ndarray) -> "Targets":
        """Targets of the samples with these indices; names and units stay.

        Parameters
        ----------
        indices : ndarray of int, shape (n,)
        """
        return replace(self, values=self.values[indices])


def load_targets(
    x: Matrix,
    *,
    y: str | os.PathLike[str] | Matrix | None = None,
    label: str | None = None,
    multilabel: str | os.PathLike[str] | Matrix | None = None,
    targets: Sequence[str] | None = None,
) -> tuple[np.ndarray, Targets, dict[str, int]]:
    """Targets of the samples of X that have any.

    Exactly one of `y`, `label` and `multilabel` is given.

    Parameters
    ----------
    x : Matrix
        The genes.
    y : path or Matrix
        Levels to predict, paired by sample id; constant ones are kept.
    label : str
        Column of x.obs. Text, categories and whole numbers are classes; numbers with fractions,
        or more than `MOST_WHOLE_NUMBERS` different ones, are one level to predict.
    multilabel : path or Matrix
        As `y`, of zeros and ones.
    targets : sequence of str, optional
        Names of the columns of `y` or `multilabel` to use, in this order; a gene, where the
        annotations name one for each column, means all its isoforms. Left out: all.

    Returns
    -------
    rows : ndarray of int64, shape (n_samples,)
        Rows of x that have targets, ascending.
    targets : Targets
        Of those rows.
    dropped : dict of str to int
        Why samples were left out, and how many; only reasons that occurred.

    Raises
    ------
    InputError
        If the column or a target is not there, no sample is shared or labelled, there is one
        class only, or a value is not finite.
    """
    if sum(source is not None for source in (y, label, multilabel)) != 1:
        raise InputError("targets: expected one of --y, --label and --multilabel")
    if label is not None:
        if targets is not None:
            raise InputError("targets: --targets chooses columns of --y; with --label there is one")
        return _from_label(x, label)
    source = y if y is not None else multilabel
    opened = open_matrix(source)
    try:
        rows, values, names, dropped = _from_matrix(x, opened, targets)
        genes = _genes_of(opened, names)
    finally:
        if opened is not source:
            opened.close()
    if multilabel is None:
        return rows, Targets("regression", values, names, opened.units, genes), dropped
    _check_zeros_and_ones(values, names)
    return rows, Targets("multilabel", values, names), dropped


def _from_matrix(
    x: Matrix, y: Matrix, targets: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], dict[str, int]]:
    rows, rows_in_y = pair_samples(
        x.samples.tolist(), y.samples.tolist(), y_columns=y.genes.tolist()
    )
    columns = None if targets is None else _find_targets(y, targets)
    names = y.genes if columns is None else y.genes[columns]
    values = np.empty((rows.size, names.size), dtype=np.float32)
    step = max(1, _BLOCK_BYTES // (4 * max(1, y.n_genes)))
    for start in range(0, rows.size, step):
        part = rows_in_y[start : start + step]
        block = y.take(part, columns)
        check_finite(block, y, part, columns=columns)
        values[start : start + step] = block
    dropped = {
        "samples of X without Y": x.n_samples - rows.size,
        "samples of Y without X": y.n_samples - rows.size,
    }
    return rows, values, tuple(names.tolist()), {k: v for k, v in dropped.items() if v}


def _genes_of(y: Matrix, names: Sequence[str]) -> tuple[str, ...] | None:
    """Gene of each target, from Y's annotations."""
    if GENE_COLUMN not in y.var.columns:
        return None
    return tuple(y.var[GENE_COLUMN].astype(str).loc[list(names)])


def _find_targets(y: Matrix, targets: Sequence[str]) -> np.ndarray:
    refuse_duplicates(targets, "targets")
    columns_of = {name: [i] for i, name in enumerate(y.genes)}
    for i, gene in enumerate(_genes_of(y, y.genes.tolist()) or ()):
        if gene not in y.var.index:
            columns_of.setdefault(gene, []).append(i)
    unknown = [name for name in targets if name not in columns_of]
    if unknown or not targets:
        first = ", ".join(y.genes[:3])
        raise InputError(
            f"targets: expected names of Y's {y.n_genes} columns ({first}, ...) or their genes; "
            f"found {', '.join(unknown[:3]) or 'none'}: correct --targets"
        )
    wanted = dict.fromkeys(i for name in targets for i in columns_of[name])
    return np.array(list(wanted), dtype=np.int64)


def _check_zeros_and_ones(values: np.ndarray, names: tuple[str, ...]) -> None:
    other = np.argwhere((values != 0) & (values != 1))
    if other.size:
        row, column = other[0]
        raise InputError(
            f"multilabel: expected zeros and ones; found {values[row, column]:g} in {names[column]}"
            ": levels go to --y"
        )


def _from_label(x: Matrix, label: str) -> tuple[np.ndarray, Targets, dict[str, int]]:
    if label not in x.obs.columns:
        raise InputError(
            f"label: expected a column of {x.path or 'X'}: "
            f"{', '.join(map(str, x.obs.columns)) or 'it has none'}; found {label!r}"
        )
    column = x.obs[label]
    rows = np.flatnonzero(~_is_absent(column))
    dropped = {f"samples without {label}": len(column) - rows.size}
    if rows.size == 0:
        raise InputError(f"label: expected a value of {label!r} for some samples; found none")
    targets = _label_targets(column.iloc[rows], label)
    return rows, targets, {k: v for k, v in dropped.items() if v}


def _is_absent(column: pd.Series) -> np.ndarray:
    """Mask of missing values and empty text."""
    as_text = column.astype(object).map(lambda value: isinstance(value, str) and not value.strip())
    return (column.isna() | as_text.astype(bool)).to_numpy()


def _label_targets(column: pd.Series, label: str) -> Targets:
    declared = isinstance(column.dtype, pd.CategoricalDtype)
    dtype = column.cat.categories.dtype if declared else column.dtype
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype):
        values = column.astype(np.float64).to_numpy()
        if not declared and _is_level(values):
            log.info("%s holds numbers: predicted as a level", label)
            return Targets("regression", values.astype(np.float32)[:, None], (label,))
        if (values == np.round(values)).all():
            values = values.astype(np.int64)
    else:
        values = np.array([str(value) for value in column], dtype=object)
    classes, codes = np.unique(values, return_inverse=True)
    if classes.size < 2:
        raise InputError(
            f"label: expected at least two classes in {label!r}; found only {str(classes[0])!r} "
            f"in {values.size} samples"
        )
    kind: Kind = "binary" if classes.size == 2 else "multiclass"
    return Targets(kind, codes.astype(np.int64), tuple(str(name) for name in classes))


def _is_level(values: np.ndarray) -> bool:
    if not np.isfinite(values).all():
        raise InputError("label: expected finite numbers; found infinity: correct the column")
    whole = bool((values == np.round(values)).all())
    return not whole or np.unique(values).size > MOST_WHOLE_NUMBERS
