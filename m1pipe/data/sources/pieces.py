"""A piece of a delimited table at one go: names, numbers and labels of its rows."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from m1pipe.data.sources.numbers import PADDING, one_number, parse_decimals

_MOST_ODD = 0.25
Scan = Callable[..., int]


class Piece(NamedTuple):
    """Rows of a piece: values (n_rows, n_columns), and the text of the columns of labels."""

    names: list[str]
    values: np.ndarray
    text: list[list[str]]


def compiled_scan() -> Scan | None:
    """The compiled reader of numbers; None without the extra `fast`. The first call takes time."""
    try:
        from m1pipe.data.sources.compiled import scan
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
    scan: Scan | None = None,
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
    scan : callable or None
        As `compiled_scan` gives; it reads numbers of any length and notation, and faster.

    Returns
    -------
    Piece or None
        None where anything must be read with more care, and for the faults to be named.
    """
    if b'"' in piece or b"\r" in piece:
        return None
    if not piece.endswith(b"\n"):
        piece += b"\n"
    labels_in_front = list(cut) == list(range(1, len(cut) + 1))
    if scan is not None and labels_in_front:
        found = _scanned(piece, delimiter, n_fields, len(cut), scan)
    else:
        found = _located(piece, delimiter, n_fields, cut)
    if found is None or len(found.odd) > _MOST_ODD * found.values.size:
        return None
    for i, start, end in found.odd.tolist():
        value = one_number(piece[start:end].decode("latin-1"))
        if value is None or (value != value and not keep_missing):
            return None
        found.values.flat[i] = value
    try:
        names, *labels = (_texts(piece, starts, ends) for starts, ends in found.texts)
    except UnicodeDecodeError:
        return None
    return Piece(names, found.values, [list(row) for row in zip(*labels, strict=True)])


class _Found(NamedTuple):
    """Numbers (n_rows, n_columns); odd tokens as (number, start, end); starts and ends of text."""

    values: np.ndarray
    odd: np.ndarray
    texts: list[tuple[np.ndarray, np.ndarray]]


def _scanned(
    piece: bytes, delimiter: str, n_fields: int, n_labels: int, scan: Scan
) -> _Found | None:
    """By compiled code, in one go over the text."""
    n_rows, n_columns = piece.count(b"\n"), n_fields - 1 - n_labels
    fronts = np.empty((n_rows, n_labels + 2), dtype=np.int64)
    values = np.empty((n_rows, n_columns), dtype=np.float32)
    odd = np.empty((int(_MOST_ODD * values.size) + 1, 3), dtype=np.int64)
    text = np.frombuffer(piece, dtype=np.uint8)
    n_odd = scan(text, np.uint8(ord(delimiter)), fronts, values, odd)
    if n_odd < 0:
        return None
    return _Found(values, odd[:n_odd], [(a, b - 1) for a, b in pairwise(fronts.T)])


def _located(piece: bytes, delimiter: str, n_fields: int, cut: Sequence[int]) -> _Found | None:
    """By numpy: where every field lies, then the numbers of all of them."""
    text = np.frombuffer(b"0" * PADDING + piece, dtype=np.uint8)
    fields = _fields(text, piece, ord(delimiter), n_fields)
    if fields is None:
        return None
    starts, ends = fields
    columns = [i for i in range(1, n_fields) if i not in set(cut)] if cut else slice(1, None)
    first, behind = (np.ascontiguousarray(part[:, columns]) for part in (starts, ends))
    values, odd = parse_decimals(text, first.ravel(), behind.ravel(), signed=b"-" in piece)
    tokens = np.stack([odd, first.flat[odd] - PADDING, behind.flat[odd] - PADDING], axis=1)
    texts = [(starts[:, i] - PADDING, ends[:, i] - PADDING) for i in (0, *cut)]
    return _Found(values.reshape(first.shape), tokens, texts)


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
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    return [piece[start:end].decode("utf-8") for start, end in spans]
