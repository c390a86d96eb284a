"""What a head predicts: levels paired to X by sample id, or a label column of X.

A target that is an isoform names its own gene, whose level X may hold.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from m1pipe.console import log
from m1pipe.data.labels import CLASS, LEVEL, find_column, read_column
from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.names import match_genes, near_names, pair_samples, refuse_duplicates
from m1pipe.data.units import Units
from m1pipe.errors import InputError, M1Warning, SettingError, counted, did_you_mean

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


def name_classes(targets: Targets) -> np.ndarray:
    """Name of each sample's class, shape (n_samples,)."""
    return np.array(targets.names, dtype=object).take(targets.values)


def load_targets(
    x: Matrix,
    *,
    y: Matrix | None = None,
    label: str | None = None,
    multilabel: Matrix | None = None,
    targets: Sequence[str] | None = None,
) -> tuple[np.ndarray, Targets, dict[str, list[str]]]:
    """Targets of the samples of X that have any.

    Exactly one of `y`, `label` and `multilabel` is given.

    Parameters
    ----------
    x : Matrix
        The genes.
    y : Matrix
        Levels to predict, paired by sample id; constant ones are kept.
    label : str
        Column of x.obs. Text, categories and whole numbers are classes; numbers with fractions,
        or more than `MOST_WHOLE_NUMBERS` different ones, are one level to predict, with a warning
        where they are whole. COL:class and COL:level say which it is.
    multilabel : Matrix
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
    dropped : dict of str to list of str
        Why samples were left out, and their ids; only reasons that occurred. They are said.

    Raises
    ------
    InputError
        If the column or a target is not there, no sample is shared or labelled, there is one
        class only, or a value is not finite.
    """
    if sum(source is not None for source in (y, label, multilabel)) != 1:
        raise SettingError("targets: expected one of --y, --label and --multilabel")
    if label is not None:
        if targets is not None:
            raise InputError("targets: --targets chooses columns of --y; with --label there is one")
        return _from_label(x, label)
    if y is not None:
        rows, values, names, dropped = _from_matrix(x, y, targets)
        return rows, Targets("regression", values, names, y.units, genes_of(y, names)), dropped
    assert multilabel is not None
    rows, values, names, dropped = _from_matrix(x, multilabel, targets)
    _check_zeros_and_ones(values, names)
    return rows, Targets("multilabel", values, names), dropped


def _from_matrix(
    x: Matrix, y: Matrix, targets: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], dict[str, list[str]]]:
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
        check_finite(block, y, part, columns=columns, way="choose others (--targets)")
        values[start : start + step] = block
    dropped = {
        "samples of X without Y": np.delete(x.samples, rows).tolist(),
        "samples of Y without X": np.delete(y.samples, rows_in_y).tolist(),
    }
    dropped = {why: ids for why, ids in dropped.items() if ids}
    if dropped:
        lost = np.setdiff1d(x.samples.astype(str), y.samples.astype(str))
        others = np.setdiff1d(y.samples.astype(str), x.samples.astype(str))
        near = near_names(lost.tolist(), others.tolist())
        ways = f": {near}: name the samples alike" if near else ""
        say_left_out(dropped, f"{counted(rows.size, 'sample is', 'samples are')} paired", ways)
    return rows, values, tuple(names.tolist()), dropped


def left_out(dropped: Mapping[str, Sequence[str]]) -> str:
    """What was left out, in words, with an example each.

    Examples
    --------
    >>> left_out({"samples without status": ["s3", "s4"]})
    '2 samples without status (such as s3)'
    >>> left_out({"samples of Y without X": ["s3"]})
    '1 sample of Y without X (such as s3)'
    """
    return ", ".join(
        f"{counted(len(ids), why.replace('samples', 'sample', 1), why)} (such as {ids[0]})"
        for why, ids in dropped.items()
    )


def say_left_out(dropped: Mapping[str, Sequence[str]], kept: str, ways: str = "") -> None:
    """Say which samples are left out; a warning where something may be done about it.

    Parameters
    ----------
    dropped : mapping of str to sequence of str
        Why, and their ids.
    kept : str
        How many are not.
    ways : str
        What may be done.
    """
    text = f"{kept}; left out: {left_out(dropped)}{ways}"
    if ways:
        warnings.warn(text, M1Warning, stacklevel=4)
    else:
        log.warning("warning: %s", text)


def genes_of(y: Matrix, names: Sequence[str]) -> tuple[str, ...] | None:
    """Gene of each target, from Y's annotations; None where these do not say."""
    if GENE_COLUMN not in y.var.columns:
        return None
    return tuple(y.var[GENE_COLUMN].astype(str).loc[list(names)])


def kind_of_columns(var: pd.DataFrame) -> str:
    """What the columns of a file are, in a word: isoforms where several are of one gene.

    >>> kind_of_columns(pd.DataFrame({"gene_id": ["A", "A"]})), kind_of_columns(pd.DataFrame())
    ('isoform', 'gene')
    """
    known = GENE_COLUMN in var.columns and var[GENE_COLUMN].dropna().duplicated().any()
    return "isoform" if known else "gene"


def _find_targets(y: Matrix, targets: Sequence[str]) -> np.ndarray:
    refuse_duplicates(targets, "targets")
    columns_of = {name: [i] for i, name in enumerate(y.genes)}
    for i, gene in enumerate(genes_of(y, y.genes.tolist()) or ()):
        if gene not in y.var.index:
            columns_of.setdefault(gene, []).append(i)
    unknown = [name for name in targets if name not in columns_of]
    if unknown or not targets:
        first = ", ".join(y.genes[:3])
        raise InputError(
            f"targets: expected names of Y's {y.n_genes:,} columns ({first}, ...) or their genes; "
            f"found {', '.join(unknown[:3]) or 'none'}"
            + (did_you_mean(unknown[0], columns_of) if unknown else "")
        )
    wanted = dict.fromkeys(i for name in targets for i in columns_of[name])
    return np.array(list(wanted), dtype=np.int64)


def _check_zeros_and_ones(values: np.ndarray, names: tuple[str, ...]) -> None:
    for row, column in np.argwhere((values != 0) & (values != 1))[:1]:
        raise InputError(
            f"multilabel: expected zeros and ones; found {values[row, column]:g} in {names[column]}"
            ": levels go to --y"
        )


def _from_label(x: Matrix, label: str) -> tuple[np.ndarray, Targets, dict[str, list[str]]]:
    name, kind = find_column(x.obs, label, "label")
    column = read_column(x.obs, name, "label")
    rows = np.flatnonzero(column.notna().to_numpy())
    if rows.size == 0:
        raise InputError(f"label: expected a value of {label!r} for some samples; found none")
    dropped = {}
    if rows.size < len(column):
        dropped[f"samples without {name}"] = x.samples[column.isna().to_numpy()].tolist()
        say_left_out(dropped, f"{counted(rows.size, 'sample has', 'samples have')} an entry")
    targets = _label_targets(column.iloc[rows], name, kind)
    return rows, targets, dropped


def _label_targets(column: pd.Series, label: str, kind: str | None) -> Targets:
    """Classes or a level, as was said, or as the values look."""
    declared = isinstance(column.dtype, pd.CategoricalDtype)
    dtype = column.cat.categories.dtype if declared else column.dtype
    numeric = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)
    if kind == LEVEL or (numeric and not declared and kind is None):
        values = _numbers(column, label)
        if kind == LEVEL or _is_level(values):
            if kind is None and (values == np.round(values)).all():
                text = (
                    f"label: {label} holds {np.unique(values).size} different whole numbers, taken "
                    f"as a level: say {label}:{CLASS} if they are codes of classes"
                )
                warnings.warn(text, M1Warning, stacklevel=4)
            log.info("%s holds numbers: predicted as a level", label)
            return Targets("regression", values.astype(np.float32)[:, None], (label,))
        log.info("%s holds whole numbers, taken as classes (%s:%s if not)", label, label, LEVEL)
    if numeric:
        numbers = _numbers(column, label)
        whole = bool((numbers == np.round(numbers)).all())
        values = numbers.astype(np.int64) if whole else numbers
    else:
        values = np.array([str(value) for value in column], dtype=object)
    classes, codes = np.unique(values, return_inverse=True)
    if classes.size < 2:
        raise InputError(
            f"label: expected at least two classes in {label!r}; found only {str(classes[0])!r} "
            f"in {counted(values.size, 'sample')}"
        )
    of_two: Kind = "binary" if classes.size == 2 else "multiclass"
    return Targets(of_two, codes.astype(np.int64), tuple(str(name) for name in classes))


def _numbers(column: pd.Series, label: str) -> np.ndarray:
    """Values of a column as numbers; text is refused by its first value that is none."""
    values = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(np.isnan(values))
    if wrong.size:
        raise InputError(
            f"label: expected numbers in {label!r} for {label}:{LEVEL}; found "
            f"{column.iloc[wrong[0]]!r}"
        )
    return values


def _is_level(values: np.ndarray) -> bool:
    if not np.isfinite(values).all():
        raise InputError("label: expected finite numbers; found infinity: correct the column")
    whole = bool((values == np.round(values)).all())
    return not whole or np.unique(values).size > MOST_WHOLE_NUMBERS


_NO_GENE = frozenset({"", "?", "nan", "None", "NA", "missing"})


@dataclass(frozen=True, eq=False)
class OwnGenes:
    """Levels of the genes that targets belong to.

    Attributes
    ----------
    values : ndarray of float32, shape (n_samples, n_own)
        Levels of those genes that X has, in X's units; NaN where one is missing.
    column : ndarray of int64, shape (n_targets,)
        Column of `values` that holds each target's own gene; -1 where X lacks it.
    """

    values: np.ndarray
    column: np.ndarray

    @property
    def has(self) -> np.ndarray:
        """Targets whose gene X has, ascending."""
        return np.flatnonzero(self.column >= 0)

    def take(self, rows: np.ndarray) -> "OwnGenes":
        """The same for some samples, in the order given.

        Parameters
        ----------
        rows : ndarray of int, shape (n_rows,)
        """
        return OwnGenes(self.values[rows], self.column)


def own_columns(
    genes: Sequence[str | None], available: Sequence[str], available_var: pd.DataFrame | None = None
) -> np.ndarray:
    """Column that holds each target's own gene.

    Parameters
    ----------
    genes : sequence of str or None, shape (n_targets,)
        Gene of each target; many targets may share one.
    available : sequence of str
        Genes of X, matched by name as everywhere (`m1pipe.data.names.match_genes`).
    available_var : DataFrame, optional
        Their annotations.

    Returns
    -------
    ndarray of int64, shape (n_targets,)
        -1 where the target names no gene, or X lacks it.
    """
    named = ["" if gene is None else str(gene) for gene in genes]
    wanted = [gene for gene in dict.fromkeys(named) if gene not in _NO_GENE]
    found = match_genes(wanted, list(available), available_var=available_var)
    place = dict(zip(wanted, found.columns.tolist(), strict=True))
    return np.array([place.get(gene, -1) for gene in named], dtype=np.int64)


def read_own_genes(columns: np.ndarray, matrix: Matrix, rows: np.ndarray) -> OwnGenes:
    """Read the levels of the targets' own genes.

    Parameters
    ----------
    columns : ndarray of int64, shape (n_targets,)
        From `own_columns`.
    matrix : Matrix
    rows : ndarray of int, shape (n_samples,)
        Rows of X that are wanted; none of their levels is infinite.
    """
    used, place = np.unique(columns[columns >= 0], return_inverse=True)
    column = np.full(columns.size, -1, dtype=np.int64)
    column[columns >= 0] = place
    return OwnGenes(matrix.take(rows, used), column)
