"""Small tables of labels: read as text, joined to samples or genes by name."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.data.labels import doubtful_numbers, label_column, warn_of_levels
from m1pipe.data.names import canonical_gene, match_genes, near_names, refuse_duplicates
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.text.known_names import is_index, names_a_gene
from m1pipe.io.text.numbers import PLAIN, Notation
from m1pipe.io.text.table import TextTable, open_table


def read_table(path: Path, notation: Notation = PLAIN) -> pd.DataFrame:
    """Delimited table of labels whose first column names the rows.

    Returns
    -------
    DataFrame
        Index: the first column, as text, with what stands above it as its name. Columns: text, or
        numbers by the rule of `label_column`; a missing value is NaN.

    Raises
    ------
    InputError
        If the file cannot be read, a row is ragged, or a row's name comes twice.
    """
    with open_table(path, notation=notation) as table:
        _refuse_gene_above(table)
        rows = [fields for _, fields in table.rows()]
    names = [row[0] for row in rows]
    texts = {name: [row[i + 1] for row in rows] for i, name in enumerate(table.columns)}
    _refuse_repeated(names, texts, path)
    columns = {name: label_column(notation.plain(fields)) for name, fields in texts.items()}
    for name, values in columns.items():
        doubt = doubtful_numbers(values)
        if doubt:
            warnings.warn(f"{path}: {name}: {doubt}", M1Warning, stacklevel=2)
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object, name=table.corner or None))


def join_labels(
    frame: pd.DataFrame, labels: pd.DataFrame, what: str, *, genes: bool = False
) -> tuple[pd.DataFrame, int]:
    """Columns of `labels` beside those of `frame`, by the name of the row; a left join.

    Parameters
    ----------
    frame : DataFrame, shape (n, a)
    labels : DataFrame, shape (m, b)
    what : str
        Named in messages, such as "labels.tsv: samples".
    genes : bool
        Rows are genes, and matched as everywhere (`m1pipe.data.names.match_genes`).

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
    if not genes:
        for column in labels.columns:
            warn_of_levels(labels[column], f"{what}: {column}")
    names, known = [str(name) for name in frame.index], [str(name) for name in labels.index]
    corner = labels.index.name
    if corner is not None and canonical_gene(str(corner)) in set(map(canonical_gene, names)):
        raise InputError(
            f"{what}: expected a header; found {corner!r}, which is one of the names: the table "
            "has no header: add one"
        )
    if genes and frame.index.is_unique:
        place = match_genes(names, known).columns
    else:
        place = labels.index.get_indexer(frame.index)
    n_matched = int((place >= 0).sum())
    near = near_names(names, known)
    hint = f"; {near}: name them alike" if near else ""
    if n_matched == 0:
        raise InputError(
            f"{what}: expected names of the matrix such as {_some(frame.index)}; found "
            f"{_some(labels.index)}, and none in common{hint}"
        )
    if n_matched < len(frame):
        lacking = frame.index[place < 0]
        warnings.warn(
            f"{what}: {len(lacking):,} of {len(frame):,} have no row (such as {_some(lacking)})"
            f"{hint}",
            M1Warning,
            stacklevel=2,
        )
    joined = labels.iloc[np.maximum(place, 0)].set_axis(frame.index).copy()
    joined[place < 0] = np.nan
    return pd.concat([frame, joined], axis=1), n_matched


def read_lengths(path: Path, genes: list[str], notation: Notation = PLAIN) -> np.ndarray:
    """Lengths of genes in bases, from the column of a table that is named so, or the second.

    Returns
    -------
    ndarray of float64, shape (n_genes,)

    Raises
    ------
    InputError
        If a gene has no length, or one that is not a positive number.
    """
    with open_table(path, notation=notation) as table:
        _refuse_gene_above(table)
        wanted = [i for i, name in enumerate(table.columns) if "length" in name.lower()]
        column = 1 + (wanted[0] if wanted else 0)
        listed = [(fields[0], fields[column]) for _, fields in table.rows()]
    refuse_duplicates([name for name, _ in listed], f"{path}: genes")
    match = match_genes(genes, [name for name, _ in listed])
    lacking = match.missing
    if lacking:
        raise InputError(
            f"{path}: expected a length for every gene; {len(lacking):,} of {len(genes):,} have "
            f"none, such as {lacking[0]!r}"
        )
    texts = [listed[place][1] for place in match.columns]
    lengths = np.array([notation.number(text) for text in texts], dtype=np.float64)
    for i in np.flatnonzero(~(lengths >= 1) | np.isinf(lengths))[:1]:
        number = notation.number(texts[i])
        fault = notation.fault(texts[i], table.delimiter) if number is None else ""
        raise InputError(
            f"{path}: expected a length of at least 1; found {texts[i]!r} for gene {genes[i]!r}"
            f"{fault and ': ' + fault}"
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
        _refuse_gene_above(table)
        rows = [fields for _, fields in table.rows()]
    refuse_duplicates([fields[0] for fields in rows], f"{path}: aliases")
    return {fields[0]: fields[1] for fields in rows}


def _refuse_repeated(names: list[str], others: dict[str, list[str]], path: Path) -> None:
    """Refuse names of rows that come twice, and say which column has each once."""
    try:
        refuse_duplicates(names, f"{path}: first column")
    except InputError as error:
        once = [c for c, texts in others.items() if is_index(c) and len({*texts}) == len(texts)]
        way = f"; or put the column {once[0]!r} first, which names each row once" if once else ""
        raise InputError(f"{error}{way}") from None


def _refuse_gene_above(table: TextTable) -> None:
    """Refuse a table whose header is a row: an Ensembl id stands where the names' name should."""
    if names_a_gene(table.corner):
        raise InputError(
            f"{table.path}: line 1: expected a header; found {table.corner!r}: the table has no "
            "header: add one, such as transcript, gene"
        )


def _some(names: pd.Index) -> str:
    return ", ".join(repr(name) for name in names[:3])
