"""Streaming reader of delimited text: a header, rows of text, blocks of numbers."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from m1pipe.data.labels import one_number
from m1pipe.errors import InputError
from m1pipe.io.text.header import (
    ROWS_AHEAD,
    decode,
    is_blank,
    read_header,
    skip_comments,
    split,
)
from m1pipe.io.text.lines import TextReader, open_chunks
from m1pipe.io.text.numbers import PLAIN, Notation, TextBlock, compiled_scan, parse_piece

# From here on compiled code and threads make up for their start.
_LARGE_BYTES = 2**22
_MOST_THREADS = 4
_INSIDE = "\x1f"  # stands for a delimiter between quotes


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
        Its next line is the header, or a comment above it.
    header_line : int
        Line number of that line.
    skipped : int
        Lines between the header and the first row that were taken out.
    repeats : bool
        Column names may come more than once.
    notation : Notation
        How numbers are written.
    numbering : sequence of str
        Names of a first column that only counts the rows.

    Attributes
    ----------
    path : Path
    delimiter : str
    corner : str
        What stands above the names of the rows.
    columns : list of str
        Names of the columns, without the one that names the rows.
    first_rows : list of list of str
        Fields of these columns in the first rows.
    labels : dict of str to list of str
        Rows of labels that `blocks` has met.
    options : tuple of str
        What names columns and rows that hold no numbers; empty where nothing does.
    """

    def __init__(
        self,
        path: Path,
        reader: TextReader,
        *,
        header_line: int = 1,
        skipped: int = 0,
        repeats: bool = False,
        notation: Notation = PLAIN,
        numbering: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.labels: dict[str, list[str]] = {}
        self.options: tuple[str, ...] = ()
        self._reader, self._notation = reader, notation
        self._blank = 0
        line, header_line = skip_comments(reader, header_line)
        self._first_line = header_line + 1 + skipped
        if not line.strip():
            raise InputError(f"{path}: expected a header line; found an empty file")
        where = f"{path}: line {header_line}"
        rows = reader.ahead(ROWS_AHEAD)
        below = [f"{path}: line {self._first_line + i}" for i in range(len(rows))]
        self._header = header = read_header(line, rows, where, below, numbering=numbering)
        self.delimiter, self.corner, self.columns = header.delimiter, header.corner, header.columns
        self.first_rows = header.first_rows
        _check_names(self.columns, where, repeats=repeats)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Rows below the header with their line numbers; an empty line among them is refused."""
        for number, piece in self._pieces():
            yield from self._lines_of(piece, number)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Rows as lists of text, the name first, with their line numbers.

        Raises
        ------
        InputError
            On a row that is wider or narrower.
        """
        for number, line in self.lines():
            fields = split(line, self.delimiter, f"{self.path}: line {number}")
            self._check_width(fields, number)
            self._check_end(fields, number)
            places = (self._header.name_field, *self._header.places)
            yield number, [fields[place].strip() for place in places]

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
        of = self._header
        cut = [*(of.places[self.columns.index(name)] for name in text_columns), *of.extra]
        pieces = self._parsed(cut, keep_missing=keep_missing)
        if text_rows:
            pieces = ((number, piece, None) for number, piece in self._pieces())
        for number, piece, parsed in pieces:
            if parsed is None or self._blank:
                held = self._held_rows(piece, number, cut, text_rows)
                if not held:
                    continue
                parsed = self._parse(held, cut, keep_missing=keep_missing)
            else:
                parsed = parsed._replace(lines=range(number, number + len(parsed.names)))
            yield self._without_extra(parsed, len(text_columns))

    def _without_extra(self, block: TextBlock, n_labels: int) -> TextBlock:
        """A block without the fields that hold neither values nor labels."""
        names, extra, text = block.names, self._header.extra, block.text
        if extra:
            for line, fields in zip(block.lines, text, strict=True):
                self._check_end(fields, line)
            if self._header.name_field:
                names = [fields[n_labels] for fields in text]
            text = [fields[:n_labels] for fields in text]
        return block._replace(names=[name.strip() for name in names], text=text)

    def _check_end(self, fields: list[str], number: int) -> None:
        """Refuse what stands behind the last name of lines that all end in empty fields."""
        behind = "".join(fields[len(fields) - self._header.trailing :]).strip()
        if behind:
            raise InputError(
                f"{self.path}: line {number}: expected nothing behind the last name, as in the "
                f"lines before; found {behind!r}"
            )

    def _parsed(
        self, cut: list[int], *, keep_missing: bool
    ) -> Iterator[tuple[int, bytes, TextBlock | None]]:
        """Pieces with the number of their first line, parsed by threads where the file is large."""
        plain = self.delimiter != " " and self._notation == PLAIN
        large = self.path.stat().st_size >= _LARGE_BYTES
        scan = compiled_scan() if plain and large else None
        if scan is None:
            yield from ((number, piece, None) for number, piece in self._pieces())
            return
        parse = partial(
            parse_piece,
            delimiter=self.delimiter,
            n_fields=self._header.n_fields,
            cut=cut,
            keep_missing=keep_missing,
            scan=scan,
        )
        n_threads = min(os.cpu_count() or 1, _MOST_THREADS)
        waiting: deque[tuple[int, bytes, Future[TextBlock | None]]] = deque()
        with ThreadPoolExecutor(n_threads, thread_name_prefix="m1pipe-parse") as pool:
            for number, piece in self._pieces():
                waiting.append((number, piece, pool.submit(parse, piece)))
                if len(waiting) > n_threads:
                    number, piece, parsing = waiting.popleft()
                    yield number, piece, parsing.result()
            for number, piece, parsing in waiting:
                yield number, piece, parsing.result()

    def _held_rows(
        self, piece: bytes, number: int, cut: list[int], text_rows: Sequence[str]
    ) -> list[_Row]:
        """Rows of a piece, cut but not yet parsed; rows of labels go to `labels`."""
        held = []
        for line_number, line in self._lines_of(piece, number):
            row = self._cut_row(line, line_number, cut)
            if row.name.strip() in text_rows:
                fields = row.numbers.split(self.delimiter)
                self._check_width(["", *row.labels, *fields], line_number)
                self.labels[row.name.strip()] = fields
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
            line = line.rstrip(b"\r")
            if is_blank(line, self.delimiter):
                self._blank = self._blank or number + offset
                continue
            if self._blank:
                raise InputError(
                    f"{self.path}: line {self._blank}: expected a row; found an empty line"
                )
            yield number + offset, line

    def _parse(self, rows: list[_Row], cut: list[int], *, keep_missing: bool) -> TextBlock:
        named = zip(self.columns, self._header.places, strict=True)
        columns = [name for name, place in named if place not in set(cut)]
        values = None
        if self._notation == PLAIN:
            values = _parse_fast([row.numbers for row in rows], self.delimiter, len(columns))
        if values is None:
            values = np.stack(
                [self._parse_row(row, columns, keep_missing=keep_missing) for row in rows]
            )
        lines, names, _, labels = map(list, zip(*rows, strict=True))
        return TextBlock(names, values, labels, lines)

    def _cut_row(self, line: bytes, number: int, cut: list[int]) -> _Row:
        """Cut a row into its name, its numbers, still as one text, and its labels."""
        where = f"{self.path}: line {number}"
        if not cut and b'"' not in line and self.delimiter != " ":
            name, delimiter, numbers = line.partition(self.delimiter.encode())
            name_text = decode(name, where)
            if not delimiter:
                self._check_width([name_text], number)
            return _Row(number, name_text, decode(numbers, where), [])
        fields = split(line, self.delimiter, where)
        self._check_width(fields, number)
        held = [f for i, f in enumerate(fields) if i > 0 and i not in cut]
        if self.delimiter in "".join(held):  # between quotes: kept apart from the others
            held = [f.replace(self.delimiter, _INSIDE) for f in held]
        rest = self.delimiter.join(held)
        return _Row(number, fields[0], rest, [fields[i] for i in cut])

    def _parse_row(self, row: _Row, columns: list[str], *, keep_missing: bool) -> np.ndarray:
        """One row the slow way, which says what is wrong and where."""
        fields = row.numbers.split(self.delimiter)
        self._check_width(["", *row.labels, *fields], row.line)
        where = f"{self.path}: line {row.line}"
        fields = [field.replace(_INSIDE, self.delimiter) for field in fields]
        values = [self._notation.number(field) for field in fields]
        for column, (field, value) in enumerate(zip(fields, values, strict=True)):
            if value is None:
                fault = self._notation.fault(field, self.delimiter) or self._why(
                    row, values, columns[column]
                )
                raise InputError(
                    f"{where}: expected a number; found {field.strip()!r} in column "
                    f"{columns[column]!r}: {fault}"
                )
            if value != value and not keep_missing:
                raise InputError(
                    f"{where}: expected a number; found {field.strip() or 'an empty field'!r} in "
                    f"column {columns[column]!r}: impute it, or let it through with --missing keep"
                )
        return np.array(values, dtype=np.float32)

    def _why(self, row: _Row, values: list[float | None], column: str) -> str:
        """What to do about text among the numbers: of a whole row, of a column, of one value."""
        fields = row.numbers.split(self.delimiter)
        words = [f for f in fields if one_number(f) is None and not f.strip()[:1].isdigit()]
        if self.options and len(values) > 1 and len(words) == len(fields):
            return f"if the row holds labels name it, {self.options[1]} {row.name.strip()}"
        place = self.columns.index(column)
        if self.options and not any(one_number(row[place]) is not None for row in self.first_rows):
            return f"the column holds no numbers: name it with {self.options[0]}"
        return "correct it, or leave it empty and let it through with --missing keep"

    def _check_width(self, fields: list[str], number: int) -> None:
        n_fields = self._header.n_fields
        if len(fields) != n_fields:
            raise InputError(
                f"{self.path}: line {number}: expected {n_fields} fields as in the header; found "
                f"{len(fields)}"
            )


@contextmanager
def open_table(
    path: Path, *, repeats: bool = False, notation: Notation = PLAIN
) -> Iterator[TextTable]:
    """Open a delimited text file, compressed or not, and read its header.

    What header and delimiter are is for `m1pipe.io.text.header` to say. With `repeats` a
    column's name may come more than once.

    Raises
    ------
    InputError
        If there is no such file, it is not text, is empty, or has no rows; and later, while it
        is read, if it turns out to be cut short or broken.
    """
    with open_chunks(path) as chunks:
        yield TextTable(path, TextReader(chunks), repeats=repeats, notation=notation)


def _check_names(names: list[str], where: str, *, repeats: bool) -> None:
    seen: set[str] = set()
    for position, name in enumerate(names):
        if not name.strip():
            raise InputError(
                f"{where}: column {position + 2} has no name: name it, or take out what stands "
                "above the header"
            )
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
