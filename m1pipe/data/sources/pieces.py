"""A piece of a delimited table at one go: names, numbers and labels of its rows."""

import importlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from m1pipe.data.sources.numbers import PADDING, one_number, parse_decimals

simdjson: Any
try:  # the extra `fast`: reads numbers of any length and notation, exactly rounded too
    simdjson = importlib.import_module("simdjson")
except ImportError:
    simdjson = None

_MOST_ODD = 0.25
_WIDE = 2**9
_THREAD = threading.local()


class Piece(NamedTuple):
    """Rows of a piece: values (n_rows, n_columns), and the text of the columns of labels."""

    names: list[str]
    values: np.ndarray
    text: list[list[str]]


def parse_piece(
    piece: bytes, *, delimiter: str, n_fields: int, cut: Sequence[int], keep_missing: bool
) -> Piece | None:
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

    Returns
    -------
    Piece or None
        None where anything must be read with more care, and for the faults to be named.
    """
    if b'"' in piece or b"\r" in piece:
        return None
    if not piece.endswith(b"\n"):
        piece += b"\n"
    in_front = list(cut) == list(range(1, len(cut) + 1))
    if simdjson is not None and in_front:
        parsed = _as_json(piece, delimiter.encode(), n_fields, len(cut))
        if parsed is not None:
            return parsed
    text = np.frombuffer(b"0" * PADDING + piece, dtype=np.uint8)
    fields = _fields(text, piece, ord(delimiter), n_fields)
    if fields is None:
        return None
    starts, ends = fields
    columns = [i for i in range(1, n_fields) if i not in set(cut)] if cut else slice(1, None)
    first, behind = (np.ascontiguousarray(part[:, columns]) for part in (starts, ends))
    values, odd = parse_decimals(text, first.ravel(), behind.ravel(), signed=b"-" in piece)
    if len(odd) > _MOST_ODD * values.size:
        return None
    for i in odd.tolist():
        token = piece[first.flat[i] - PADDING : behind.flat[i] - PADDING]
        value = one_number(token.decode("latin-1"))
        if value is None or (value != value and not keep_missing):
            return None
        values[i] = value
    try:
        names, *labels = ([*_texts(piece, starts[:, i], ends[:, i])] for i in (0, *cut))
    except UnicodeDecodeError:
        return None
    return Piece(
        names, values.reshape(first.shape), [list(row) for row in zip(*labels, strict=True)]
    )


def _as_json(piece: bytes, delimiter: bytes, n_fields: int, n_labels: int) -> Piece | None:
    """The same by a reader of JSON, which has no missing values, leading zeros or bare points."""
    minus_zero = b"-" in piece and (b"-0\n" in piece or b"-0" + delimiter in piece)
    if minus_zero or b"[" in piece or b"{" in piece:
        return None
    rows = [line.split(delimiter, n_labels + 1) for line in piece.split(b"\n")[:-1]]
    n_columns = n_fields - n_labels - 1
    if any(len(row) < n_labels + 2 for row in rows):
        return None
    texts = [row[-1] for row in rows]
    if n_columns < _WIDE:  # short rows are read together, for which they must be equally long
        if any(text.count(delimiter) != n_columns - 1 for text in texts):
            return None
        texts = [b",".join(texts)]
    try:
        values = _nearest(texts, delimiter, len(rows) * n_columns // len(texts))
        names = [row[0].decode("utf-8") for row in rows]
        labels = [[label.decode("utf-8") for label in row[1:-1]] for row in rows]
    except (ValueError, TypeError, RuntimeError):  # the last: whole numbers beyond 64 bits
        return None
    if not np.isfinite(values).all():
        return None
    return Piece(names, values.reshape(len(rows), n_columns), labels)


def _nearest(texts: list[bytes], delimiter: bytes, n_columns: int) -> np.ndarray:
    """Numbers of equally long rows as float32, (n_rows, n_columns); ValueError if they are not."""
    if not hasattr(_THREAD, "parser"):
        _THREAD.parser = simdjson.Parser()  # its buffers are large: one a thread, used again
    commas = bytes.maketrans(delimiter, b",")
    values = np.empty((len(texts), n_columns), dtype=np.float32)
    for row, text in zip(values, texts, strict=True):
        array = _THREAD.parser.parse(b"[" + text.translate(commas) + b"]")
        if len(array) != n_columns:
            raise ValueError
        with np.errstate(over="ignore"):
            row[:] = np.frombuffer(array.as_buffer(of_type="d"), dtype=np.float64)
        del array  # the parser cannot be used while it lives
    return values


def _fields(
    text: np.ndarray, piece: bytes, delimiter: int, n_fields: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where every field starts and ends, (n_rows, n_fields); None where a line is ragged."""
    ends = np.flatnonzero((text == delimiter) | (text == ord("\n")))
    n_rows = piece.count(b"\n")
    if len(ends) != n_rows * n_fields:
        return None
    starts = np.empty_like(ends)
    starts[0] = PADDING
    np.add(ends[:-1], 1, out=starts[1:])
    if (text[ends[n_fields - 1 :: n_fields]] != ord("\n")).any():
        return None
    return starts.reshape(n_rows, n_fields), ends.reshape(n_rows, n_fields)


def _texts(piece: bytes, starts: np.ndarray, ends: np.ndarray) -> list[str]:
    spans = zip((starts - PADDING).tolist(), (ends - PADDING).tolist(), strict=True)
    return [piece[start:end].decode("utf-8") for start, end in spans]
