"""Small tables of labels: read as text, joined to samples or genes by name."""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.data.names import refuse_duplicates
from m1pipe.data.sources.numbers import MISSING
from m1pipe.data.sources.text import open_table
from m1pipe.errors import InputError, M1Warning

_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][+-]?\d+)")
_INTEGER = re.compile(r"[+-]?\d+")


def read_table(path: Path) -> pd.DataFrame:
    """Delimited table of labels whose first column names the rows.

    Returns
    -------
    DataFrame
        Index: the first column, as text. Columns: text, or numbers by the rule of
        `label_column`; a missing value is NaN.

    Raises
    ------
    InputError
        If the file cannot be read, a row is ragged, or a row's name comes twice.
    """
    with open_table(path) as table:
        rows = [fields for _, fields in table.rows()]
    names = [row[0] for row in rows]
    refuse_duplicates(names, f"{path}: first column")
    columns = {
        name: label_column([row[position + 1] for row in rows])
        for position, name in enumerate(table.columns)
    }
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def label_column(fields: list[str]) -> np.ndarray:
    """Labels as text, or as numbers where they are measurements.

    Numbers are recognised by a decimal point or exponent in at least one of them. Whole numbers
    stay text: a donor 101 or a class 0 is a name.

    Parameters
    ----------
    fields : list of str, length n

    Returns
    -------
    ndarray, shape (n,)
        float64, or objects (str, and NaN where a value is missing).
    """
    known = [field for field in fields if field not in MISSING]
    numeric = [bool(_DECIMAL.fullmatch(f)) or bool(_INTEGER.fullmatch(f)) for f in known]
    if known and all(numeric) and any(_DECIMAL.fullmatch(f) for f in known):
        return np.array([np.nan if f in MISSING else float(f) for f in fields])
    return np.array([np.nan if f in MISSING else f for f in fields], dtype=object)


def join_labels(frame: pd.DataFrame, labels: pd.DataFrame, what: str) -> tuple[pd.DataFrame, int]:
    """Columns of `labels` beside those of `frame`, by the name of the row; a left join.

    Parameters
    ----------
    frame : DataFrame, shape (n, a)
    labels : DataFrame, shape (m, b)
    what : str
        Named in messages, such as "labels.tsv: samples".

    Returns
    -------
    joined : DataFrame, shape (n, a + b)
        NaN where `labels` has no row of that name.
    n_matched : int
        Rows of `frame` that `labels` knows.

    Raises
    ------
    InputError
        If no name is in both, or both have a column of the same name.
    """
    twice = [name for name in labels.columns if name in frame.columns]
    if twice:
        raise InputError(f"{what}: column {twice[0]!r} is there already: rename one of them")
    n_matched = int(frame.index.isin(labels.index).sum())
    if n_matched == 0:
        raise InputError(
            f"{what}: expected names of the matrix such as {_some(frame.index)}; found "
            f"{_some(labels.index)}, and none in common"
        )
    if n_matched < len(frame):
        lacking = frame.index[~frame.index.isin(labels.index)]
        warnings.warn(
            f"{what}: {len(lacking):,} of {len(frame):,} have no row (such as {_some(lacking)})",
            M1Warning,
            stacklevel=2,
        )
    return frame.join(labels), n_matched


def read_lengths(path: Path, genes: list[str]) -> np.ndarray:
    """Lengths of genes in bases, from the second column of a table.

    Returns
    -------
    ndarray of float64, shape (n_genes,)

    Raises
    ------
    InputError
        If a gene has no length, or one that is not a positive number.
    """
    with open_table(path) as table:
        rows = {fields[0]: fields[1] for _, fields in table.rows()}
    lacking = [gene for gene in genes if gene not in rows]
    if lacking:
        raise InputError(
            f"{path}: expected a length for every gene; {len(lacking):,} of {len(genes):,} have "
            f"none, such as {lacking[0]!r}"
        )
    texts = [rows[gene] for gene in genes]
    lengths = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~(lengths > 0) | np.isinf(lengths))
    if len(wrong):
        raise InputError(
            f"{path}: expected a positive length; found {texts[wrong[0]]!r} for gene "
            f"{genes[wrong[0]]!r}"
        )
    return lengths


def read_aliases(path: Path) -> dict[str, str]:
    """Other names of genes: the first column of a table is the alias, the second the name.

    Raises
    ------
    InputError
        If an alias comes twice, or the table has one column only.
    """
    with open_table(path) as table:
        rows = [fields for _, fields in table.rows()]
    refuse_duplicates([fields[0] for fields in rows], f"{path}: aliases")
    return {fields[0]: fields[1] for fields in rows}


def _some(names: pd.Index) -> str:
    return ", ".join(repr(name) for name in names[:3])
