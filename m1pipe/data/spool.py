"""Values on their way from a source to h5ad: text is parsed once into a raw file, then re-read."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.rawio import read_at
from m1pipe.data.sources.tables import label_column
from m1pipe.data.sources.text import TextTable, open_table
from m1pipe.data.survey import Block
from m1pipe.errors import InputError, M1Warning

BLOCK_BYTES = 2**24
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
    """

    obs: pd.DataFrame
    var: pd.DataFrame
    blocks: Callable[[], Iterator[Block]]

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_genes)."""
        return len(self.obs), len(self.var)


def load_text(
    path: Path,
    spool: BinaryIO,
    *,
    genes_as_rows: bool = False,
    label_names: Sequence[str] = (),
    keep_missing: bool = False,
) -> Loaded:
    """Parse delimited text once, row by row, into `spool` as raw float32.

    Parameters
    ----------
    path : Path
        Samples x genes, or genes x samples, possibly compressed.
    spool : binary file
        Empty, open for reading and writing; it must stay open as long as the result is used.
    genes_as_rows : bool
        Which way round the text is.
    label_names : sequence of str
        Labels that sit among the genes: columns, or rows where genes are rows.
    keep_missing : bool
        Missing values become NaN instead of being refused.

    Returns
    -------
    Loaded

    Raises
    ------
    InputError
        As the text reader does; on a row name that comes twice; on a label that is not there.
    """
    text_columns = () if genes_as_rows else tuple(label_names)
    text_rows = tuple(label_names) if genes_as_rows else ()
    line_of: dict[str, int] = {}
    text: list[list[str]] = []
    with open_table(path) as table:
        columns = _number_columns(table, text_columns)
        for block in table.blocks(
            text_columns=text_columns, text_rows=text_rows, keep_missing=keep_missing
        ):
            _note_names(line_of, block.names, block.lines, path)
            text.extend(block.text)
            _append(spool, block.values)
    names = list(line_of)
    if genes_as_rows:
        labels = _row_labels(table, text_rows)
        blocks = _transposed_blocks(spool, len(names), len(columns))
        return Loaded(_frame(columns, labels), _frame(names, {}), blocks)
    _doubt_orientation(names, columns, path)
    labels = {name: [row[i] for row in text] for i, name in enumerate(text_columns)}
    blocks = _row_blocks(spool, len(names), len(columns))
    return Loaded(_frame(names, labels), _frame(columns, {}), blocks)


def load_matrix(matrix: Matrix, *, keep_missing: bool = False) -> Loaded:
    """Stream an open matrix; NaN is refused unless it is to be kept."""

    def blocks() -> Iterator[Block]:
        for start, stop, X in matrix.blocks():
            if not keep_missing:
                check_finite(X, matrix, start)
            yield start, stop, X

    return Loaded(matrix.obs, matrix.var, blocks)


def _number_columns(table: TextTable, text_columns: Sequence[str]) -> list[str]:
    lacking = [name for name in text_columns if name not in table.columns]
    if lacking:
        raise InputError(
            f"{table.path}: expected the label column {lacking[0]!r}; found columns such as "
            f"{', '.join(map(repr, table.columns[:3]))}"
        )
    columns = [name for name in table.columns if name not in text_columns]
    if not columns:
        raise InputError(f"{table.path}: expected columns of numbers; found labels only")
    return columns


def _note_names(
    line_of: dict[str, int], names: Sequence[str], lines: Sequence[int], path: Path
) -> None:
    """Remember row names; one that comes twice is refused, naming both lines."""
    for name, line in zip(names, lines, strict=True):
        if not name.strip():
            raise InputError(f"{path}: line {line}: expected a name in the first field; found none")
        if name in line_of:
            raise InputError(
                f"{path}: line {line}: expected each name once; found {name!r} again, first on "
                f"line {line_of[name]}"
            )
        line_of[name] = line


def _row_labels(table: TextTable, names: Sequence[str]) -> dict[str, list[str]]:
    lacking = [name for name in names if name not in table.labels]
    if lacking:
        raise InputError(f"{table.path}: expected a row of labels named {lacking[0]!r}; found none")
    return {name: table.labels[name] for name in names}


def _frame(names: Sequence[str], labels: dict[str, list[str]]) -> pd.DataFrame:
    columns = {name: label_column(fields) for name, fields in labels.items()}
    return pd.DataFrame(columns, index=pd.Index(list(names), dtype="object"))


def _doubt_orientation(rows: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """Warn where the rows have the names of genes and the columns have not."""
    shares = [
        np.mean([bool(_ENSEMBL.match(name)) for name in names[:100]]) for names in (rows, columns)
    ]
    if shares[0] > 0.5 > shares[1]:
        warnings.warn(
            f"{path}: the rows look like genes ({rows[0]}): is it --genes-as-rows?",
            M1Warning,
            stacklevel=2,
        )


def _row_blocks(spool: BinaryIO, n_rows: int, n_columns: int) -> Callable[[], Iterator[Block]]:
    """Blocks of a raw file of samples x genes."""
    step = max(BLOCK_BYTES // (4 * n_columns), 1)

    def blocks() -> Iterator[Block]:
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            X = np.empty((stop - start, n_columns), dtype=np.float32)
            read_at(spool.fileno(), X, 4 * n_columns * start)
            yield start, stop, X

    return blocks


def _transposed_blocks(
    spool: BinaryIO, n_rows: int, n_columns: int
) -> Callable[[], Iterator[Block]]:
    """Blocks of samples of a raw file of genes x samples, a slab of columns at a time."""
    slab = max(TRANSPOSE_BYTES // (4 * n_rows), 1)
    step = max(BLOCK_BYTES // (4 * n_rows), 1)

    def blocks() -> Iterator[Block]:
        for left in range(0, n_columns, slab):
            right = min(left + slab, n_columns)
            columns = np.empty((n_rows, right - left), dtype=np.float32)
            for row in range(n_rows):
                read_at(spool.fileno(), columns[row], 4 * (row * n_columns + left))
            for start in range(left, right, step):
                stop = min(start + step, right)
                yield start, stop, np.ascontiguousarray(columns[:, start - left : stop - left].T)

    return blocks


def _append(spool: BinaryIO, X: np.ndarray) -> None:
    view = np.ascontiguousarray(X).data.cast("B")
    while view:
        try:
            view = view[spool.write(view) :]
        except OSError as error:
            raise InputError(
                f"no room for a temporary copy beside the destination: {error.strerror}"
            ) from None
