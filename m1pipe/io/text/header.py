"""The header of a table: comment lines, the delimiter, the column that names the rows."""

import csv
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from m1pipe.data.names import plain
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.text.known_names import INDEX_WORDS, counts_rows, is_index, is_number, shape
from m1pipe.io.text.lines import BOM, TextReader

ROWS_AHEAD = 20
_DELIMITERS = "\t,; "

# ... of row numbers that programs write before it ...
_NUMBERING = frozenset(["", "index", "unnamed0", "row", "rownames", "rowname", "no", "nr"])


@dataclass(frozen=True)
class Header:
    """What the first lines of a table say.

    Attributes
    ----------
    delimiter : str
    corner : str
        Name above the names of the rows; empty where there is none.
    columns : list of str
        Names of the columns that hold values.
    places : list of int
        Field of each of them.
    name_field : int
        Field that names the rows.
    n_fields : int
        That every row has.
    trailing : int
        Fields at the end of every row that have no name and hold nothing.
    first_rows : list of list of str
        Fields of these columns in the first rows.
    """

    delimiter: str
    corner: str
    columns: list[str]
    places: list[int]
    name_field: int
    n_fields: int
    trailing: int
    first_rows: list[list[str]]

    @property
    def extra(self) -> list[int]:
        """Fields, but the first, that hold neither values nor anything that is kept."""
        fields = {*range(1, self.n_fields)} - {*self.places}
        return sorted(fields)


def skip_comments(reader: TextReader, first_line: int) -> tuple[bytes, int]:
    """The header line and its number: lines that begin with # before it are left out.

    The last of them is the header itself where it has as many fields as the line below.

    Parameters
    ----------
    reader : TextReader
    first_line : int
        Number of its next line.
    """
    number, held = first_line, b""
    line = (reader.line() or b"").removeprefix(BOM)
    if re.fullmatch(rb"sep=.", line.strip(b'"')):  # that Excel writes and reads
        line, number = reader.line() or b"", number + 1
    while line.startswith(b"#") or (not line.strip() and held):
        held, following = line, reader.line()
        if following is None:
            return line, number
        if not following.startswith(b"#") and _names_row(held, following):
            reader.back([following])
            return held.lstrip(b"# "), number
        line, number = following, number + 1
    return line, number


def _names_row(comment: bytes, row: bytes) -> bool:
    """Whether a comment is the header of the line below: as many fields, numbers below."""
    for delimiter in (b"\t", b",", b";"):
        names, fields = comment.split(delimiter), row.split(delimiter)
        if len(names) == len(fields) > 1:
            return any(is_number(field.decode("latin-1")) for field in fields[1:])
    return False


def read_header(
    line: bytes,
    rows: Sequence[bytes],
    where: str,
    below: Sequence[str],
    *,
    numbering: Sequence[str] = (),
) -> Header:
    """What the header line and the first rows say together.

    Parameters
    ----------
    line : bytes
        The header.
    rows : sequence of bytes
        The first lines below it.
    where : str
        File and line of the header, for messages.
    below : sequence of str
        The same of the rows.
    numbering : sequence of str
        Further names of a first column that only counts the rows.

    Raises
    ------
    InputError
        If there is no header, or names and fields do not go together.
    """
    delimiter = find_delimiter(line, rows, where)
    cells = [cell.strip() for cell in split(line, delimiter, where)]
    table = [
        [field.strip() for field in split(row, delimiter, place)]
        for row, place in zip(rows, below, strict=True)
        if not is_blank(row, delimiter)
    ]
    if not table:
        raise InputError(f"{where}: expected rows below the header; found empty ones")
    n_fields = len(table[0])
    equal = all(len(fields) == n_fields for fields in table)
    ended = min(map(_empty_at_end, table)) if equal else 0
    trailing = min(_empty_at_end(cells), ended, n_fields - 2) if len(cells) == n_fields else 0
    short = False
    if len(cells) == n_fields - 1:
        trailing, short = _one_short(cells, table, ended > 0, where)
    elif trailing > 0 or (len(cells) == n_fields + 1 and cells[-1] == ""):
        cells = cells[: -max(trailing, 1)]
    named = ["", *cells] if short else cells
    first = 1 if _is_numbered(named, table, {*_NUMBERING, *numbering}) else 0
    _refuse_numbers(named, table, short, where)
    places = list(range(first + 1, len(named)))
    n_fields = len(named) + trailing
    return Header(
        delimiter=delimiter,
        corner=named[first],
        columns=[named[place] for place in places],
        places=places,
        name_field=first,
        n_fields=n_fields,
        trailing=trailing,
        first_rows=[[row[place] for place in places] for row in table if len(row) == n_fields],
    )


def is_blank(line: bytes, delimiter: str) -> bool:
    """Whether a line holds nothing, or delimiters alone."""
    return not line.strip().strip(delimiter.encode() + b" ")


def _empty_at_end(fields: Sequence[str]) -> int:
    """Fields at the end that hold nothing."""
    return next((n for n, field in enumerate(reversed(fields)) if field), len(fields))


def _one_short(
    cells: list[str], table: list[list[str]], ended: bool, where: str
) -> tuple[int, bool]:
    """Whether a header with one name too few lacks a trailing delimiter, or the first name."""
    named = is_index(cells[0])
    if ended:
        if named or cells[0] == "":
            return 1, False
        raise InputError(
            f"{where}: expected a name for every column; found {len(cells)} names for "
            f"{len(table[0])} fields, of which the last is always empty: take the delimiter off "
            "the ends of the lines, or name the first column too"
        )
    if named and not counts_rows([fields[0] for fields in table]):
        raise InputError(
            f"{where}: expected a name for every column; found {len(cells)} names for "
            f"{len(table[0])} fields, the first of them {cells[0]!r}, which names the rows: one "
            "name is missing"
        )
    if _run_together(cells):
        text = (
            f"{where}: the header has one name fewer than the rows have fields, as R writes it, so "
            f"that {cells[0]!r} names the first column behind the rows' names: are these two names?"
        )
        warnings.warn(text, M1Warning, stacklevel=5)
    return 0, True


def _run_together(cells: list[str]) -> bool:
    """Whether the first name may be the rows' own name with the first column's behind it."""
    first, others = plain(cells[0]), [shape(plain(cell)) for cell in cells[1:]]
    behind = [first[len(w) :] for w in INDEX_WORDS if len(w) > 1 and first.startswith(w)]
    if not others:
        return any(behind)
    return any(shape(rest) == others[0] for rest in behind if rest)


def _is_numbered(named: list[str], table: list[list[str]], numbering: set[str]) -> bool:
    """Whether the first column only counts the rows, and the second names them."""
    if len(named) < 3 or plain(named[0]) not in numbering or not is_index(named[1]):
        return False
    second = [fields[1] for fields in table if len(fields) > 1]
    ids = all(name.isdigit() for name in second) and len(set(second)) == len(second)
    named_by = ids or not any(map(is_number, second))
    return counts_rows([fields[0] for fields in table]) and named_by


def _refuse_numbers(named: list[str], table: list[list[str]], short: bool, where: str) -> None:
    """Refuse a header that is a row of numbers: names may be whole numbers, levels hardly are."""
    cells = named[1:]
    if short or not cells or not all(is_number(cell) for cell in cells):
        return
    corner = named[0]
    whole = all(cell.isdigit() for cell in cells)
    alike = sum(shape(fields[0]) == shape(corner) for fields in table) > len(table) / 2
    is_name = corner == "" or is_index(corner)
    if whole and len(set(cells)) == len(cells) and is_name and not alike:
        return
    raise InputError(
        f"{where}: expected names in the header; found numbers ({', '.join(cells[:3])}): the table "
        "has no header: add one; where these are names, write id above the names of the rows"
    )


def find_delimiter(line: bytes, rows: Sequence[bytes], where: str) -> str:
    """Tab, comma, semicolon or blank: the first that cuts header and rows alike."""
    text = line.decode("latin-1")
    below = [row.decode("latin-1") for row in rows if row.strip()]
    if not below and any(delimiter in text for delimiter in "\t,;"):
        raise InputError(f"{where}: expected rows below the header; found the header only")
    above = [d for d in _DELIMITERS if d in _outside_quotes(text)]
    only_below = [d for d in _DELIMITERS if below and d in _outside_quotes(below[0])]
    candidates = above if set(above) - {" "} else only_below
    for delimiter in candidates:
        widths = {len(_fields(row, delimiter)) for row in below}
        n_names = len(_fields(text, delimiter))
        if len(widths) == 1 and n_names in (fitting := (min(widths), min(widths) - 1)):
            if max(fitting) > 1:
                return delimiter
    first = next(iter(above), None)
    if first is None or first == " ":
        raise InputError(
            f"{where}: expected names separated by tabs or commas; found {text[:40]!r}"
        )
    return first


def split(line: bytes, delimiter: str, where: str) -> list[str]:
    """Fields of a line, quotes taken off.

    Raises
    ------
    InputError
        As `decode`, or if a quote opens a field and does not close it.
    """
    try:
        return _fields(decode(line, where), delimiter, strict=True)
    except csv.Error:
        raise InputError(
            f"{where}: expected quotes in pairs around a field; found one alone: close it, or "
            "double it within quotes"
        ) from None


def _fields(text: str, delimiter: str, *, strict: bool = False) -> list[str]:
    if delimiter == " ":
        row = csv.reader([text.strip()], delimiter=" ", skipinitialspace=True, strict=strict)
        return next(row, [""])
    if '"' in text:
        return next(csv.reader([text], delimiter=delimiter, strict=strict))
    return text.split(delimiter)


def _outside_quotes(text: str) -> str:
    return re.sub(r'"[^"]*"', "", text)


def decode(text: bytes, where: str) -> str:
    """Text of UTF-8.

    Raises
    ------
    InputError
        If it is of another encoding, or a carriage return stands in it.
    """
    if b"\r" in text:
        raise InputError(
            f"{where}: expected a line end; found a carriage return inside the line: take it out "
            "(tr -d '\\r')"
        )
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: expected UTF-8 text: {error}: save it as UTF-8, or iconv -f latin1 -t utf8"
        ) from None
