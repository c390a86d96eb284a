"""Numbers out of text: how they are written, one at a time, and whole pieces by compiled code."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from m1pipe.data.labels import one_number


@dataclass(frozen=True)
class Notation:
    """How numbers are written.

    Attributes
    ----------
    decimal : str
        Stands before the fraction.
    thousands : str
        Parts thousands; empty where nothing does.
    """

    decimal: str = "."
    thousands: str = ""

    def number(self, field: str) -> float | None:
        """A finite float32, NaN for a missing one, None for anything else."""
        if self.thousands:
            whole = field.strip().split(self.decimal)[0]
            if self.thousands in whole and not re.fullmatch(
                rf"[+-]?\d{{1,3}}({re.escape(self.thousands)}\d{{3}})+", whole
            ):
                return None
            field = field.replace(self.thousands, "")
        if self.decimal != ".":
            if "." in field:
                return None
            field = field.replace(self.decimal, ".")
        return one_number(field)

    def plain(self, fields: Sequence[str]) -> list[str]:
        """Fields of a column of labels, with points before fractions where all are numbers."""
        if self == PLAIN or any(self.number(field) is None for field in fields):
            return list(fields)
        bare = [field.replace(self.thousands, "") if self.thousands else field for field in fields]
        return [field.replace(self.decimal, ".") for field in bare]

    def fault(self, field: str, delimiter: str) -> str:
        """What is likely the matter with text that is no number; empty where nobody knows."""
        field = field.strip()
        if self.decimal == "," and "." in field:
            return "a point, where commas are decimal: --thousands . where it parts thousands"
        groups = re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", field)
        if groups and delimiter != ";":
            return "thousands: --thousands , reads them (--decimal , where the comma is decimal)"
        if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", field):
            return "decimal commas: --decimal , reads them"
        if re.fullmatch(r"[+-]?\d{1,3}([.,' \u00a0\u202f]\d{3})+([.,]\d+)?", field):
            mark = next(c for c in field if not c.isdigit() and c not in "+-")
            quoted = shlex.quote(mark)
            return f"thousands: --thousands {quoted} reads them (and --decimal , where it is one)"
        return ""


PLAIN = Notation()


_MOST_ODD = 0.25
Scan = Callable[..., int]


class TextBlock(NamedTuple):
    """Some consecutive rows of a table.

    Attributes
    ----------
    names : list of str
        First field of each row.
    values : ndarray of float32, shape (n_rows, n_columns - n_text_columns)
        NaN where a value is missing and that is allowed.
    text : list of list of str
        Fields of the text columns, one list a row.
    lines : sequence of int
        Line number of each row, the header being line 1; empty where a piece does not know.
    """

    names: list[str]
    values: np.ndarray
    text: list[list[str]]
    lines: Sequence[int] = ()


def compiled_scan() -> Scan | None:
    """The compiled reader of numbers; None without the extra `fast`. The first call takes time."""
    try:
        from m1pipe.io.text.compiled import scan
    except ImportError:
        return None
    compiled: Scan = scan
    return compiled


def parse_piece(
    piece: bytes,
    *,
    delimiter: str,
    n_fields: int,
    cut: Sequence[int],
    keep_missing: bool,
    scan: Scan,
) -> TextBlock | None:
    """Parse whole lines, if they are plain and without a fault.

    Parameters
    ----------
    piece : bytes
        Lines; the last may lack its end.
    delimiter : str
        One character.
    n_fields : int
        Fields that every line has, the name included.
    cut : sequence of int
        Fields that hold labels.
    keep_missing : bool
        Missing values become NaN.
    scan : callable
        As `compiled_scan` gives.

    Returns
    -------
    TextBlock or None
        None where anything must be read with more care, and for the faults to be named.
    """
    if b'"' in piece or b"\r" in piece:
        return None
    if not piece.endswith(b"\n"):
        piece += b"\n"
    is_text = np.zeros(n_fields, dtype=np.bool_)
    is_text[[0, *cut]] = True
    n_rows, n_texts = piece.count(b"\n"), int(is_text.sum())
    values = np.empty((n_rows, n_fields - n_texts), dtype=np.float32)
    spans = np.empty((n_texts, n_rows, 2), dtype=np.int64)
    odd = np.empty((int(_MOST_ODD * values.size) + 1, 3), dtype=np.int64)
    text = np.frombuffer(piece, dtype=np.uint8)
    n_odd = scan(text, np.uint8(ord(delimiter)), is_text, spans, values, odd)
    if not 0 <= n_odd <= _MOST_ODD * values.size:
        return None
    for i, start, end in odd[:n_odd].tolist():
        value = one_number(piece[start:end].decode("latin-1"))
        if value is None or (value != value and not keep_missing):
            return None
        values.flat[i] = value
    places = np.searchsorted(np.flatnonzero(is_text), [0, *cut])
    try:
        names, *labels = (
            [piece[start:end].decode("utf-8") for start, end in spans[place].tolist()]
            for place in places
        )
    except UnicodeDecodeError:
        return None
    if not all(map(str.strip, names)):
        return None
    return TextBlock(names, values, [list(row) for row in zip(*labels, strict=True)])
