"""Streaming reader of delimited text: a header, rows of text, blocks of numbers."""

import csv
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from m1pipe.data.sources.lines import TextReader, open_chunks
from m1pipe.data.sources.numbers import one_number
from m1pipe.data.sources.pieces import Piece, compiled_scan, parse_piece
from m1pipe.errors import InputError

# From here on compiled code and threads make up for their start.
_LARGE_BYTES = 2**26
_MOST_THREADS = 4


@dataclass(frozen=True)
class TextBlock:
    """Some consecutive rows of a table.

    Attributes
    ----------
    names : list of str
        First field of each row.
    lines : list of int
        Line number of each row, the header being line 1.
    values : ndarray of float32, shape (n_rows, n_columns - n_text_columns)
        NaN where a value is missing and that is allowed.
    text : list of list of str
        Fields of the text columns, one list a row.
    """

    names: list[str]
    lines: list[int]
    values: np.ndarray
    text: list[list[str]]


class _Row(NamedTuple):
    line: int
    name: str
    numbers: str
    labels: list[str]


class TextTable:
    """A delimited table that is being read, made by `open_table`.

    Parameters
    ----------
    path : Path
        For messages.
    reader : TextReader
        Its next line is the header.
    header_line : int
        Line number of the header.
    skipped : int
        Lines between the header and the first row that were taken out.
    repeats : bool
        Column names may come more than once.

    Attributes
    ----------
    path : Path
    delimiter : str
    columns : list of str
        Names of the columns after the first, which names the rows.
    labels : dict of str to list of str
        Rows of labels that `blocks` has met.
    """

    def __init__(
        self,
        path: Path,
        reader: TextReader,
        *,
        header_line: int = 1,
        skipped: int = 0,
        repeats: bool = False,
    ) -> None:
        self.path = path
        self._first_line = header_line + 1 + skipped
        self.labels: dict[str, list[str]] = {}
        self._reader = reader
        self._blank = 0
        header = (reader.line() or b"").removeprefix(b"\xef\xbb\xbf")
        if not header.strip():
            raise InputError(f"{path}: expected a header line; found an empty file")
        where = f"{path}: line {header_line}"
        self.delimiter = _find_delimiter(header, where)
        cells = _split(header, self.delimiter, where)
        first = reader.line()
        if first is None:
            raise InputError(f"{path}: expected rows below the header; found the header only")
        reader.back(first)
        n_fields = len(_split(first, self.delimiter, f"{path}: line {self._first_line}"))
        # R writes no name above the row names, so that its header is one field shorter.
        self.columns = cells if len(cells) == n_fields - 1 else cells[1:]
        _check_names(self.columns, where, repeats=repeats)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Rows below the header with their line numbers; an empty line among them is refused."""
        for number, piece in self._pieces():
            yield from self._lines_of(piece, number)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Rows as lists of text with their line numbers, all as wide as the header.

        Raises
        ------
        InputError
            On a row that is wider or narrower.
        """
        for number, line in self.lines():
            fields = _split(line, self.delimiter, f"{self.path}: line {number}")
            self._check_width(fields, number)
            yield number, fields

    def blocks(
        self,
        *,
        text_columns: Sequence[str] = (),
        text_rows: Sequence[str] = (),
        keep_missing: bool = False,
    ) -> Iterator[TextBlock]:
        """Rows as numbers, some megabytes of text at a time.

        Parameters
        ----------
        text_columns : sequence of str
            Columns that hold labels, not numbers.
        text_rows : sequence of str
            Rows that hold labels: left out, and kept in `labels`.
        keep_missing : bool
            Empty fields and those in `MISSING` become NaN instead of being refused.

        Raises
        ------
        InputError
            On a ragged row, a missing value, or text among the numbers, with line and column.
        """
        cut = [self.columns.index(name) + 1 for name in text_columns]
        pieces = self._parsed(cut, keep_missing=keep_missing)
        if text_rows:
            pieces = ((number, piece, None) for number, piece in self._pieces())
        for number, piece, parsed in pieces:
            if parsed is not None and not self._blank:
                lines = list(range(number, number + len(parsed.names)))
                yield TextBlock(parsed.names, lines, parsed.values, parsed.text)
                continue
            held = self._held_rows(piece, number, cut, text_rows)
            if held:
                yield self._parse(held, cut, keep_missing=keep_missing)

    def _parsed(
        self, cut: list[int], *, keep_missing: bool
    ) -> Iterator[tuple[int, bytes, Piece | None]]:
        """Pieces with the number of their first line, those of a large file parsed by threads."""
        large = self.path.stat().st_size >= _LARGE_BYTES
        parse = partial(
            parse_piece,
            delimiter=self.delimiter,
            n_fields=len(self.columns) + 1,
            cut=cut,
            keep_missing=keep_missing,
            scan=compiled_scan() if large else None,
        )
        if not large:
            for number, piece in self._pieces():
                yield number, piece, parse(piece)
            return
        n_threads = min(os.cpu_count() or 1, _MOST_THREADS)
        waiting: deque[tuple[int, bytes, Future[Piece | None]]] = deque()
        with ThreadPoolExecutor(n_threads, thread_name_prefix="m1pipe-parse") as pool:
            for number, piece in self._pieces():
                waiting.append((number, piece, pool.submit(parse, piece)))
                if len(waiting) > n_threads:
                    yield _done(waiting.popleft())
            while waiting:
                yield _done(waiting.popleft())

    def _held_rows(
        self, piece: bytes, number: int, cut: list[int], text_rows: Sequence[str]
    ) -> list[_Row]:
        """Rows of a piece, cut but not yet parsed; rows of labels go to `labels`."""
        held = []
        for line_number, line in self._lines_of(piece, number):
            row = self._cut_row(line, line_number, cut)
            if row.name in text_rows:
                self.labels[row.name] = row.numbers.split(self.delimiter)
                self._check_width(["", *self.labels[row.name]], line_number)
            else:
                held.append(row)
        return held

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines, about a megabyte at a time, with the number of the first."""
        number = self._first_line
        while (piece := self._reader.piece()) is not None:
            yield number, piece
            number += piece.count(b"\n") + (not piece.endswith(b"\n"))

    def _lines_of(self, piece: bytes, number: int) -> Iterator[tuple[int, bytes]]:
        """Lines of a piece with their numbers; an empty one before a row is refused."""
        for offset, line in enumerate(piece.removesuffix(b"\n").split(b"\n")):
            line = line.removesuffix(b"\r")
            if not line:
                self._blank = self._blank or number + offset
                continue
            if self._blank:
                raise InputError(
                    f"{self.path}: line {self._blank}: expected a row; found an empty line"
                )
            yield number + offset, line

    def _parse(self, rows: list[_Row], cut: list[int], *, keep_missing: bool) -> TextBlock:
        columns = [c for i, c in enumerate(self.columns) if i + 1 not in set(cut)]
        values = _parse_fast([row.numbers for row in rows], self.delimiter, len(columns))
        if values is None:
            values = np.stack(
                [self._parse_row(row, columns, keep_missing=keep_missing) for row in rows]
            )
        names, lines, text = ([getattr(r, f) for r in rows] for f in ("name", "line", "labels"))
        return TextBlock(names, lines, values, text)

    def _cut_row(self, line: bytes, number: int, cut: list[int]) -> _Row:
        """Cut a row into its name, its numbers, still as one text, and its labels."""
        if not cut and b'"' not in line:
            name, delimiter, numbers = line.partition(self.delimiter.encode())
            name_text = _decode(name, f"{self.path}: line {number}")
            if not delimiter:
                self._check_width([name_text], number)
            return _Row(number, name_text, numbers.decode("latin-1"), [])
        fields = _split(line, self.delimiter, f"{self.path}: line {number}")
        self._check_width(fields, number)
        rest = self.delimiter.join(f for i, f in enumerate(fields) if i > 0 and i not in cut)
        return _Row(number, fields[0], rest, [fields[i] for i in cut])

    def _parse_row(self, row: _Row, columns: list[str], *, keep_missing: bool) -> np.ndarray:
        """One row the slow way, which says what is wrong and where."""
        fields = row.numbers.split(self.delimiter)
        self._check_width(["", *row.labels, *fields], row.line)
        where = f"{self.path}: line {row.line}"
        values = [one_number(field) for field in fields]
        for column, (field, value) in enumerate(zip(fields, values, strict=True)):
            if value is None:
                raise InputError(
                    f"{where}: expected a number; found {field.strip()!r} in column "
                    f"{columns[column]!r}: name label columns with --obs-columns"
                )
            if value != value and not keep_missing:
                raise InputError(
                    f"{where}: expected a number; found {field.strip() or 'an empty field'!r} in "
                    f"column {columns[column]!r}: impute it, or let it through with --missing keep"
                )
        return np.array(values, dtype=np.float32)

    def _check_width(self, fields: list[str], number: int) -> None:
        if len(fields) != len(self.columns) + 1:
            raise InputError(
                f"{self.path}: line {number}: expected {len(self.columns) + 1} fields as in the "
                f"header; found {len(fields)}"
            )


@contextmanager
def open_table(path: Path, *, repeats: bool = False) -> Iterator[TextTable]:
    """Open a delimited text file, compressed or not, and read its header.

    The delimiter is what the header holds: a tab, else a comma, else a semicolon. With `repeats`
    a column's name may come more than once.

    Raises
    ------
    InputError
        If there is no such file, it is not text, is empty, or has no rows; and later, while it
        is read, if it turns out to be cut short or broken.
    """
    with open_chunks(path) as chunks:
        yield TextTable(path, TextReader(chunks), repeats=repeats)


def _done(
    waiting: tuple[int, bytes, Future[Piece | None]],
) -> tuple[int, bytes, Piece | None]:
    number, piece, parsing = waiting
    return number, piece, parsing.result()


def _find_delimiter(header: bytes, where: str) -> str:
    for delimiter in "\t,;":
        if delimiter.encode() in header:
            return delimiter
    raise InputError(
        f"{where}: expected names separated by tabs or commas; found "
        f"{header[:40].decode('latin-1')!r}"
    )


def _split(line: bytes, delimiter: str, where: str) -> list[str]:
    text = _decode(line, where)
    if '"' in text:
        return next(csv.reader([text], delimiter=delimiter))
    return text.split(delimiter)


def _decode(text: bytes, where: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: expected UTF-8 text: {error}") from None


def _check_names(names: list[str], where: str, *, repeats: bool) -> None:
    seen: set[str] = set()
    for position, name in enumerate(names):
        if not name.strip():
            raise InputError(f"{where}: column {position + 2} has no name")
        if name in seen and not repeats:
            raise InputError(
                f"{where}: expected each column name once; found {name!r} again in column "
                f"{position + 2}"
            )
        seen.add(name)


def _parse_fast(rests: list[str], delimiter: str, n_columns: int) -> np.ndarray | None:
    """All rows at one go, or None where any of them is not n_columns finite numbers."""
    if not all(rests):
        return None
    try:
        values = np.loadtxt(rests, dtype=np.float32, delimiter=delimiter, comments=None, ndmin=2)
    except ValueError:
        return None
    if values.shape != (len(rests), n_columns) or not np.isfinite(values).all():
        return None
    return values
