"""Values on their way from a source to h5ad: text is parsed once into a raw file, then re-read.

On the way samples and genes are chosen, genes that share a name and runs of one experiment summed.
"""

import re
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from m1pipe.console import log
from m1pipe.data.labels import label_column, one_number
from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.survey import Block
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.rows import read_at
from m1pipe.io.text.known_names import (
    describing_columns,
    doubtful_samples,
    is_measure,
    names_left_out,
    several_of_a_sample,
    turned_to_dates,
)
from m1pipe.io.text.numbers import TextBlock
from m1pipe.io.text.table import TextTable, open_table

BLOCK_BYTES = 2**22
TRANSPOSE_BYTES = 2**27
_ENSEMBL = re.compile(r"ENS[A-Z]*[GT]\d{11}")


@dataclass(frozen=True)
class Loaded:
    """Values of a source, ready to be streamed as often as wanted.

    Attributes
    ----------
    obs, var : DataFrame
        Indexed by sample and by gene names; labels that sat among the genes are in `obs`.
    blocks : callable
        () -> iterator of (start, stop, X), samples in order; X float32 of shape
        (stop - start, n_genes).
    chosen : callable or None
        (rows,) -> the same of some rows, ascending, where they can be read alone.
    """

    obs: pd.DataFrame
    var: pd.DataFrame
    blocks: Callable[[], Iterator[Block]]
    chosen: Callable[[np.ndarray], Iterator[Block]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_genes)."""
        return len(self.obs), len(self.var)


def load_text(path: Path, raw: BinaryIO, config: ConvertConfig) -> Loaded:
    """Parse delimited text once, row by row, into `raw` as raw float32.

    Parameters
    ----------
    path : Path
        Samples x genes, or genes x samples, possibly compressed.
    raw : binary file
        Empty, open for reading and writing; it must stay open as long as the result is used.
    config : ConvertConfig
        Which side the genes are on, labels and what describes genes among the values, how numbers
        are written, what is done with missing ones and with names that come more than once.

    Raises
    ------
    InputError
        As the text reader does; on a row name that comes twice; on a label that is not there.
    """
    by_genes, repeats = config.genes_as_rows, config.duplicates == "sum"
    of_rows, of_columns = config.var_columns, config.obs_columns
    options = ("--obs-columns", "--var-columns")
    if by_genes:
        of_rows, of_columns, options = of_columns, of_rows, options[::-1]
    with open_table(path, repeats=repeats and not by_genes, notation=config.notation) as table:
        table.options = options
        if by_genes:
            known = describing_columns(table.columns, table.first_rows)
            unnamed = [name for name in known if name not in of_columns]
            if unnamed:
                found = ", ".join(unnamed)
                log.info("%s: columns that describe genes: %s (kept in var)", path, found)
            of_columns = tuple(dict.fromkeys([*known, *of_columns]))
        columns = _number_columns(table, of_columns)
        if by_genes:
            _doubt_samples(columns, path)
        corner, keep = table.corner, config.missing == "keep"
        blocks = table.blocks(text_columns=of_columns, text_rows=of_rows, keep_missing=keep)
        names, text = store_rows(blocks, raw, path, repeats=repeats and by_genes)
    no_names = names_left_out(corner, columns, names)
    if no_names:
        raise InputError(
            f"{path}: expected names of the rows in the first column; {no_names}: write the names "
            "into a first column, as R does with row.names = TRUE"
        )
    sides = (columns, names) if by_genes else (names, columns)
    _check_orientation(*sides, path, "leave out" if by_genes else "give")
    beside = {name: [row[i] for row in text] for i, name in enumerate(of_columns)}
    lacking = [name for name in of_rows if name not in table.labels]
    if lacking:
        raise InputError(f"{path}: expected a row of labels named {lacking[0]!r}; found none")
    above = {name: table.labels[name] for name in of_rows}
    if by_genes:
        data = transposed_blocks(raw, len(names), len(columns))
        return Loaded(named_frame(columns, above), gene_frame(names, beside), data)
    data = row_blocks(raw, len(names), len(columns))
    return Loaded(named_frame(names, beside), gene_frame(columns, above), data)


def _doubt_samples(columns: Sequence[str], path: Path) -> None:
    several = several_of_a_sample(columns)
    if several:
        others = ",".join(name for names in several for name in names[1:])
        raise InputError(
            f"{path}: expected one column a sample; found several quantities of one "
            f"({', '.join(several[0])}): keep one of them, --var-columns {shlex.quote(others)} "
            "sets the others aside"
        )
    odd = doubtful_samples(columns)
    if odd:
        text = f"{path}: taken as samples: {', '.join(odd[:6])}: if they describe genes name them"
        warnings.warn(f"{text} by --var-columns", M1Warning, stacklevel=4)


def gene_frame(names: Sequence[str], columns: dict[str, list[str]]) -> pd.DataFrame:
    """What describes genes: text, and what can be measured of a gene as numbers."""
    frame = named_frame(names, columns)
    for name, fields in columns.items():
        values = [one_number(field) for field in fields]
        if is_measure(name) and not any(value is None for value in values):
            frame[name] = np.array(values, dtype=np.float64)
    return frame


def load_matrix(matrix: Matrix, *, keep_missing: bool = False) -> Loaded:
    """Stream an open matrix; NaN is refused unless it is to be kept."""

    def checked(rows: np.ndarray, X: np.ndarray) -> np.ndarray:
        if not keep_missing:
            check_finite(X, matrix, rows, way="let it through with --missing keep")
        return X

    def blocks() -> Iterator[Block]:
        for start, stop, X in matrix.blocks():
            yield start, stop, checked(np.arange(start, stop), X)

    def chosen(wanted: np.ndarray) -> Iterator[Block]:
        done = 0
        for rows in matrix.bands(wanted):
            yield done, done + len(rows), checked(rows, matrix.take(rows))
            done += len(rows)

    return Loaded(matrix.obs, matrix.var, blocks, chosen)


def load_genes(matrix: Matrix, raw: BinaryIO) -> Loaded:
    """Copy values that are stored by genes to `raw` once, each chunk inflated once."""
    X = matrix.whole_genes
    assert X is not None
    for start in range(0, matrix.n_genes, X.chunks[0]):
        values = X[start : start + X.chunks[0]].astype(np.float32)
        if not np.isfinite(values).all():
            gene = matrix.genes[start + int(np.argwhere(~np.isfinite(values))[0, 0])]
            raise InputError(f"{matrix.path}: expected finite numbers; found others in {gene!r}")
        append(raw, values)
    data = transposed_blocks(raw, matrix.n_genes, matrix.n_samples)
    return Loaded(matrix.obs, matrix.var, data)


def store_rows(
    blocks: Iterable[TextBlock], raw: BinaryIO, path: Path, *, repeats: bool
) -> tuple[list[str], list[list[str]]]:
    """Append the values of all rows to `raw`; their names and their fields of text."""
    line_of: dict[str, int] = {}
    names: list[str] = []
    text: list[list[str]] = []
    for block in blocks:
        for name, line in zip(block.names, block.lines, strict=True):
            if not name.strip() or (name in line_of and not repeats):
                raise InputError(f"{path}: line {line}: {_name_fault(name, line_of)}")
            line_of[name] = line
        names.extend(block.names)
        text.extend(block.text)
        append(raw, block.values)
    return names, text


def _name_fault(name: str, line_of: dict[str, int]) -> str:
    """Why a row cannot bear a name: it is none, or one that stands on another line."""
    if not name.strip():
        return "expected a name in the first field; found none: name it, or take the line out"
    way = "rename or drop one; --duplicates sum adds up genes that share a name"
    if turned_to_dates([name]):
        way = "Excel made dates of genes, such as MARCH1 and MARC1: take the table from its source"
    return f"expected each name once; found {name!r} again, first on line {line_of[name]}: {way}"


def _number_columns(table: TextTable, text_columns: Sequence[str]) -> list[str]:
    lacking = [name for name in text_columns if name not in table.columns]
    if lacking:
        raise InputError(
            f"{table.path}: expected the column {lacking[0]!r}; found columns such as "
            f"{', '.join(map(repr, table.columns[:3]))}"
        )
    columns = [name for name in table.columns if name not in text_columns]
    if not columns:
        raise InputError(f"{table.path}: expected columns of numbers; found labels only")
    return columns


def named_frame(names: Sequence[str], labels: dict[str, list[str]]) -> pd.DataFrame:
    """Annotations of samples, columns of labels by their names."""
    columns = {name: label_column(fields) for name, fields in labels.items()}
    return pd.DataFrame(columns, index=pd.Index(list(names), dtype="object"))


def _check_orientation(samples: Sequence[str], genes: Sequence[str], path: Path, way: str) -> None:
    """Refuse a table whose Ensembl ids stand where samples should."""
    astray = [name for name in samples if _ENSEMBL.match(name)]
    if not astray:
        return
    found = f"{len(astray):,} of {len(samples):,} named like genes ({astray[0]!r})"
    if any(map(_ENSEMBL.match, genes)):
        why = ", and genes on the other side too: is it one table?"
    else:
        why = f": the table is transposed: {way} --genes-as-rows"
    raise InputError(f"{path}: expected samples; found {found}{why}")


def row_blocks(raw: BinaryIO, n_rows: int, n_columns: int) -> Callable[[], Iterator[Block]]:
    """Blocks of a raw file of samples x genes."""
    step = max(BLOCK_BYTES // (4 * n_columns), 1)

    def blocks() -> Iterator[Block]:
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            X = np.empty((stop - start, n_columns), dtype=np.float32)
            read_at(raw.fileno(), X, 4 * n_columns * start)
            yield start, stop, X

    return blocks


def transposed_blocks(raw: BinaryIO, n_rows: int, n_columns: int) -> Callable[[], Iterator[Block]]:
    """Blocks of samples of a raw file of genes x samples, a slab of columns at a time."""
    slab = max(TRANSPOSE_BYTES // (4 * n_rows), 1)
    step = max(BLOCK_BYTES // (4 * n_rows), 1)

    def blocks() -> Iterator[Block]:
        for left in range(0, n_columns, slab):
            right = min(left + slab, n_columns)
            columns = np.empty((n_rows, right - left), dtype=np.float32)
            for row in range(n_rows):
                read_at(raw.fileno(), columns[row], 4 * (row * n_columns + left))
            for start in range(left, right, step):
                stop = min(start + step, right)
                yield start, stop, np.ascontiguousarray(columns[:, start - left : stop - left].T)

    return blocks


def append(raw: BinaryIO, X: np.ndarray) -> None:
    """Write an array at the end of a raw file; a full disk becomes an InputError.

    Parameters
    ----------
    raw : file open for writing
    X : ndarray of any shape
        In C order.
    """
    view = np.ascontiguousarray(X).data.cast("B")
    while view:
        try:
            view = view[raw.write(view) :]
        except OSError as error:
            raise InputError(
                f"no room for a temporary copy beside the destination: {error.strerror}"
            ) from None
